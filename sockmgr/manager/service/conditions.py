"""Futures for a state of a service. Conditions are checked after each fact, never by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.errors import ControlError


class Conditions:
    """The conditions that callers wait for, each with a future that is done when it is met."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def until(self, met: Callable[[], bool]) -> asyncio.Future[None]:
        """Return a future that is done once `met()` is true, which may be now."""
        future: asyncio.Future[None] = self._loop.create_future()
        if met():
            future.set_result(None)
        else:
            self._waiting.append((met, future))
        return future

    def check(self) -> bool:
        """Check every condition, since a fact may have made it true; tell whether one is."""
        for met, future in self._waiting:
            # Cancelled by a caller that has given up, e.g. at its timeout.
            if not future.done() and met():
                future.set_result(None)
        before = len(self._waiting)
        self._waiting = [(met, future) for met, future in self._waiting if not future.done()]
        return len(self._waiting) < before

    def end(self, why: str) -> None:
        """Fail the futures that are left by a ControlError that says `why`."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(ControlError(why))
