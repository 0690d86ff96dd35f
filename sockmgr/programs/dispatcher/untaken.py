"""Notices workers that do not take the connections passed to them, and when none waits any more.

Owns one timer, which runs only while connections may wait, and knows whose emptiness somebody waits
to hear of. The remedies are performed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sockmgr.programs.dispatcher.events import Timing
from sockmgr.programs.dispatcher.link import Link
from sockmgr.programs.dispatcher.loop import Loop, Timer
from sockmgr.programs.dispatcher.messages import TAKES_NONE, Say


class Remedies(NamedTuple):
    """What the dispatcher does about a worker that takes nothing."""

    ask: Callable[[Link], None]  # request a report
    bypass: Callable[[Link], None]  # and pass its waiting connections to others
    replace: Callable[[int, str], None]  # the worker of this lease, for this reason
    looked: Callable[[], None]  # after each look at all workers
    quiet: Callable[[int], None]  # no connection waits for this lease any more
    say: Say


class Untaken:
    """Watches all workers of one service, whose `links` are borrowed."""

    def __init__(
        self, loop: Loop, links: Mapping[int, Link], timing: Timing, remedies: Remedies
    ) -> None:
        self._loop, self._links, self._timing, self._remedies = loop, links, timing, remedies
        self._awaited: set[int] = set()
        self._check: Timer | None = None

    def mind(self) -> None:
        """Have the timer run that checks whether all workers take their connections."""
        if self._check is None:
            self._check = self._loop.call_later(self._timing.take, self._look)

    def quiet(self, lease: int) -> None:
        """Tell, once, when an unfed worker has nothing waiting, or is gone."""
        self._awaited.add(lease)
        if (link := self._links.get(lease)) and not link.leaving:
            if link.waiting:
                self._remedies.ask(link)
            self.mind()
        self.settle(lease)

    def is_awaited(self, lease: int) -> bool:
        """Return whether somebody waits to hear that this worker has nothing waiting."""
        return lease in self._awaited

    def await_none(self) -> None:
        """Tell nobody: who asked is gone."""
        self._awaited.clear()

    def settle(self, lease: int) -> None:
        """Tell who waits for it if no connection waits for the worker, or it is gone."""
        if lease in self._awaited:
            link = self._links.get(lease)
            if link is None or not link.waiting:
                self._awaited.discard(lease)
                self._remedies.quiet(lease)

    def close(self) -> None:
        """Cancel the timer, and tell nobody."""
        if self._check:
            self._check.cancel()
            self._check = None
        self._awaited.clear()

    def _look(self) -> None:
        self._check = None
        for link in [x for x in self._links.values() if not (x.broken or x.leaving)]:
            if link.stands_still() and not link.silent_at:
                self._note_silence(link)
            elif link.waiting and self.is_awaited(link.lease):
                self._remedies.ask(link)
            if link.silent_at and not link.given_up:
                self._mind_silence(link)
            if link.mark is not None and not link.given_up:
                self.mind()
        self._remedies.looked()

    def _note_silence(self, link: Link) -> None:
        link.silent_at = self._loop.time()
        self._remedies.say("warning", TAKES_NONE, worker=link.name, waiting=link.waiting,
                           means="others get what waits for it")  # fmt: skip
        self._remedies.bypass(link)

    def _mind_silence(self, link: Link) -> None:
        silent = self._loop.time() - link.silent_at
        if silent >= self._timing.replace:
            link.given_up = True
            self._remedies.replace(link.lease, f"it took no connection for {silent:.0f} s")
        else:
            self.mind()
