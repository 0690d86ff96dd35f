"""Asks one worker that serves again and again, and tells when it fails and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.manager.probes.prober import Prober


class HealthWatch:
    """Of one worker. `tell` is called with what failed last, or "": only if that is news.

    It is the first time that a probe was passed, `failures` failed ones in a row, or the first one
    that was passed after these. `seen` is what failed last, "" if nothing did.
    """

    def __init__(self, prober: Prober, failures: int, tell: Callable[[str], None]) -> None:
        self.seen = ""
        self._prober, self._most, self._tell = prober, failures, tell
        self._failed = 0
        self._told: str | None = None

    async def watch(self) -> None:
        """Ask it until this is cancelled."""
        while True:
            # It has just proven that it serves, one way or the other.
            await asyncio.sleep(self._prober.probe.every)
            seen = await self._prober.ask()
            if self._prober.is_sent:  # else there is no dispatcher, or all is being stopped
                self._take(seen)

    def _take(self, seen: str) -> None:
        self.seen = seen
        self._failed = self._failed + 1 if seen else 0
        # Only what is news becomes a fact: a thousand workers that are well cost a request each.
        if not seen and self._told != "":
            self._told = ""
            self._tell("")
        elif self._failed >= self._most and not self._told:
            self._told = seen
            self._tell(f"{seen}, {self._failed} times in a row")
