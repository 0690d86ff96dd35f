"""Who waits until something is so with a service: looked at after each fact, never by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.errors import ControlError


class Conditions:
    """What is waited for, each with a future that is done when it is so."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def until(self, met: Callable[[], bool]) -> asyncio.Future[None]:
        """Return what is done once `met()` is true, which may be now."""
        future: asyncio.Future[None] = self._loop.create_future()
        if met():
            future.set_result(None)
        else:
            self._waiting.append((met, future))
        return future

    def look(self) -> None:
        """Look at everything, for it may be so by now."""
        for met, future in self._waiting:
            if not future.done() and met():
                future.set_result(None)
        self._waiting = [(met, future) for met, future in self._waiting if not future.done()]

    def end(self, why: str) -> None:
        """Nothing will change any more: those who wait get a ControlError that says `why`."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(ControlError(why))
