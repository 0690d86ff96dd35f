"""Blocking calls that many wait for at once: one call serves all who asked before it began.

Fifty services that are reloaded together would otherwise wait for fifty grace periods of the
kernel, one after the other, as there is one thread beside the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Call(Generic[T]):
    """One call in the thread: `begun` is set there, and `result` is set before anybody waits."""

    begun: bool = False
    result: asyncio.Future[T] | None = None


class SharedCall(Generic[T]):
    """A blocking function that tells how things are after it was asked for."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._last: _Call[T] = _Call(begun=True)

    async def __call__(self) -> T:
        """Return what the function returns, or raise what it raises, in a call that begins now.

        Who asks while another call goes on waits for the next one: what that call has seen may be
        older than the question.
        """
        call = self._last
        if call.begun or call.result is None:
            call = self._last = _Call()
            loop = asyncio.get_running_loop()
            call.result = loop.run_in_executor(None, self._run, call)
        # Shielded, since others wait for the same call: one that gives up must not cancel it.
        return await asyncio.shield(call.result)

    def _run(self, call: _Call[T]) -> T:
        call.begun = True  # before the function: whoever found it unset asked before that
        return self._function()
