"""When to start a helper process again that has ended: at once, but not in a tight loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

STEADY = 10.0  # seconds: the failure of a helper that ran this long starts the backoff anew
DELAY_MAX = 30.0  # seconds


class Restarts:
    """The restarts of one helper, by a timer of the running loop; at most one is planned."""

    def __init__(self) -> None:
        self._failures = 0
        self._started_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def plan(self, start: Callable[[], None]) -> float:
        """Call `start` after a delay, which doubles with each failure in a row; return it."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._started_at >= STEADY:
            self._failures = 0
        # The first failure in a row costs no wait: most are accidents, e.g. the OOM killer.
        delay = min(DELAY_MAX, 0.1 * 2.0 ** min(self._failures, 12)) if self._failures else 0.0
        self._failures += 1
        self._started_at = loop.time() + delay
        self._timer = loop.call_later(delay, start)
        return delay

    def cancel(self) -> None:
        """Forget the start that was planned, if any."""
        if self._timer:
            self._timer.cancel()
