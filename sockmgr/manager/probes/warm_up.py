"""Warms up one new worker: asked for each path some times, it may answer whatever it likes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from sockmgr.config.probe import HttpProbe
from sockmgr.errors import ListenError
from sockmgr.manager.probes.prober import Reach, get, trusting
from sockmgr.manager.probes.reply import NoAnswer, Reply


@dataclass(slots=True)
class Warmed:
    """How many `requests` there were and how many `failed`, and the slowest of two kinds.

    `first` and `last` are seconds: of the first requests to each path, and of the last ones.
    `is_cut`: there was no time for all.
    """

    requests: int = 0
    failed: int = 0
    first: float = 0.0
    last: float = 0.0
    is_cut: bool = False

    def add(self, other: Warmed) -> None:
        """Count the requests to another worker as well."""
        self.requests += other.requests
        self.failed += other.failed
        self.first, self.last = max(self.first, other.first), max(self.last, other.last)
        self.is_cut |= other.is_cut


async def warm_up(
    like: HttpProbe, paths: Sequence[str], times: int, reach: Reach, *, tls: bool, limit: float
) -> Warmed:
    """Ask by requests `like` this one, one after the other, for at most `limit` seconds."""
    warmed, loop = Warmed(), asyncio.get_running_loop()
    context = trusting() if tls else None
    try:
        async with asyncio.timeout(limit):
            # All paths before any is repeated, as users would come.
            for number in range(times):
                for path in paths:
                    began = loop.time()
                    is_answered = await _is_answered(replace(like, path=path), reach, context)
                    warmed.requests, warmed.failed = (
                        warmed.requests + 1,
                        warmed.failed + (not is_answered),
                    )
                    took = round(loop.time() - began, 6)
                    if number == 0:
                        warmed.first = max(warmed.first, took)
                    if number == times - 1:
                        warmed.last = max(warmed.last, took)
    except TimeoutError:
        warmed.is_cut = True
    return warmed


async def _is_answered(request: HttpProbe, reach: Reach, tls: ssl.SSLContext | None) -> bool:
    try:
        await get(await reach(), request, Reply(), tls)
    except (NoAnswer, ListenError, OSError, ValueError):  # as in Prober.ask()
        return False
    return True
