"""Starts a process that helps us again when it ended: at once, but not in a tight loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

STEADY = 10.0  # seconds after which its end is no longer one of a row
DELAY_MAX = 30.0


class Restarts:
    """The restarts of one helper: the next one, if it is due, by a timer of the running loop."""

    def __init__(self) -> None:
        self._failures = 0
        self._started_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def plan(self, start: Callable[[], None]) -> float:
        """Call `start` soon, the later the more often that was of late; return in how many s."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._started_at >= STEADY:
            self._failures = 0
        delay = min(DELAY_MAX, 0.1 * 2.0 ** min(self._failures, 12)) if self._failures else 0.0
        self._failures += 1
        self._started_at = loop.time() + delay
        self._timer = loop.call_later(delay, start)
        return delay

    def cancel(self) -> None:
        """Start nothing any more."""
        if self._timer:
            self._timer.cancel()
