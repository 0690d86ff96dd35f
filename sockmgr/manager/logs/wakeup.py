"""Wakes those who wait until there is something new. Keeps nothing of what is new."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Rung by one, heard by any number, each in its own time."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake all who wait."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def next(self) -> asyncio.Future[None]:
        """Return what is done at the next ring; whoever stops waiting cancels it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future


def rung() -> asyncio.Future[None]:
    """Return what is done already: there is something new."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
