"""Notices workers that do not take the connections passed to them, and when none waits any more.

Owns one timer, which runs only while connections may wait, and knows whose emptiness somebody waits
to hear of. The remedies are performed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sockmgr.programs.dispatcher.link import Link
from sockmgr.programs.dispatcher.loop import Loop, Timer
from sockmgr.programs.dispatcher.messages import TAKES_NONE, Say


class Remedies:
    """What the dispatcher does about a worker that takes nothing."""

    __slots__ = ("ask", "bypass", "looked", "quiet", "replace", "say")

    def __init__(
        self,
        ask: Callable[[Link], None],
        bypass: Callable[[Link], None],
        replace: Callable[[int, str], None],
        looked: Callable[[], None],
        quiet: Callable[[int], None],
        say: Say,
    ) -> None:
        """`ask` requests a report, `bypass` also passes its waiting connections to others.

        `replace` is called with a lease and the reason, `looked` after each look at all workers,
        `quiet` with a lease for which no connection waits any more.
        """
        self.ask, self.bypass, self.replace = ask, bypass, replace
        self.looked, self.quiet, self.say = looked, quiet, say


class Untaken:
    """Watches all workers of one service, whose `links` are borrowed."""

    def __init__(
        self,
        loop: Loop,
        links: Mapping[int, Link],
        take: float,
        replace: float,
        remedies: Remedies,
    ) -> None:
        """Bypass a worker that takes nothing for `take` seconds, and replace it `replace` later."""
        self._loop, self._links, self._remedies = loop, links, remedies
        self._take, self._replace = take, replace
        self._awaited: set[int] = set()
        self._check: Timer | None = None

    @property
    def is_calm(self) -> bool:
        """Whether no connection may wait, so that nothing is looked at."""
        return self._check is None

    def mind(self) -> None:
        """Have the timer run that checks whether all workers take their connections."""
        if self._check is None:
            self._check = self._loop.call_later(self._take, self._look)

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
        if silent >= self._replace:
            link.given_up = True
            self._remedies.replace(link.lease, f"it took no connection for {silent:.0f} s")
        else:
            self.mind()
