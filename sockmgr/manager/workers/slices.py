"""What is to be done at many workers at once, done in slices between which others have the loop.

A thousand stop signals, each with a look at the descendants and a record, take half a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

SLICE = 0.01  # seconds: as long as that a client may wait for its answer


class Slices:
    """Work in the order in which it was added; each piece is done once, soon."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, work: Callable[[], None]) -> None:
        """Do this when what was added before is done, and not in this call."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._take_slice)

    def _take_slice(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE
        try:
            while self._waiting and loop.time() < until:
                # It is taken out when it is done, so that add() does not begin another slice.
                self._waiting[0]()
                self._waiting.popleft()
        except BaseException:
            self._waiting.popleft()  # it failed, and would fail again
            raise
        finally:
            if self._waiting:
                loop.call_soon(self._take_slice)
