"""Notices workers that do not take the connections passed to them, and when none waits any more.

Owns one timer, which runs only while connections may wait, and a future for each worker whose
queue somebody waits to see empty. The remedies are performed elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.manager.dispatch.link import Link

_log = Log("sockmgr.dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """What the dispatcher does about a worker that takes nothing."""

    ask: Callable[[Link], None]  # request a report from this worker
    bypass: Callable[[Link], None]  # ask, and pass its waiting connections to others
    replace: Callable[[int, str], None]  # the worker of this lease, for this reason
    looked: Callable[[], None]  # called after each look at all workers


class Untaken:
    """Watches all workers of one dispatcher, whose `links` are borrowed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        links: Mapping[int, Link],
        take: float,
        replace: float,
        remedies: Remedies,
    ) -> None:
        """Bypass a worker that takes nothing for `take` seconds, and replace it `replace` later."""
        self._loop, self._links, self._remedies = loop, links, remedies
        self._take, self._replace = take, replace
        self._quiet: dict[int, asyncio.Future[None]] = {}
        self._check: asyncio.TimerHandle | None = None

    def mind(self) -> None:
        """Have the timer run that checks whether all workers take their connections."""
        if self._check is None:
            self._check = self._loop.call_later(self._take, self._look)

    def quiet(self, lease: int) -> asyncio.Future[None]:
        """Return a future that is done when an unfed worker has nothing waiting, or is gone."""
        future = self._quiet.get(lease)
        if future is None or future.cancelled():
            future = self._quiet[lease] = self._loop.create_future()
        if (link := self._links.get(lease)) and not link.leaving:
            if link.waiting:
                self._remedies.ask(link)
            self.mind()
        self.settle(lease)
        return future

    def is_awaited(self, lease: int) -> bool:
        """Return whether a future of quiet() is pending for this worker."""
        return lease in self._quiet

    def settle(self, lease: int) -> None:
        """Complete the future of quiet() if no connection waits for the worker, or it is gone."""
        link, future = self._links.get(lease), self._quiet.get(lease)
        if future and (link is None or not link.waiting):
            del self._quiet[lease]
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Cancel the timer and all futures."""
        if self._check:
            self._check.cancel()
        for future in self._quiet.values():
            future.cancel()

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
        _log.warning(EventKind.WORKER_TAKES_NO_CONNECTIONS, worker=link.name, waiting=link.waiting,
                     means="others get what waits for it")  # fmt: skip
        self._remedies.bypass(link)

    def _mind_silence(self, link: Link) -> None:
        silent = self._loop.time() - link.silent_at
        if silent >= self._replace:
            link.given_up = True
            why = f"it took no connection for {silent:.0f} s"
            self._loop.call_soon(self._remedies.replace, link.lease, why)
        else:
            self.mind()
