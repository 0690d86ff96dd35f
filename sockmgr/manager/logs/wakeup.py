"""Wakes the tasks that wait for something new; what is new is kept elsewhere."""

from __future__ import annotations

import asyncio


class Wakeup:
    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        for future in self._waiting:
            # A future that was cancelled leaves the set only in the next turn of the loop.
            if not future.done():
                future.set_result(None)

    def next(self, *, now: bool = False) -> asyncio.Future[None]:
        """Return a future that is done `now`, or at the next ring(); cancel it to stop waiting."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if now:
            future.set_result(None)
        return future
