"""Warms up one new worker: asked for each path some times, it may answer whatever it likes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from msgspec.structs import replace

from sockmgr.api.types import WarmUp
from sockmgr.config.probe import HttpProbe
from sockmgr.errors import ListenError
from sockmgr.manager.probes.prober import Reach, get, trusting
from sockmgr.manager.probes.reply import NoAnswer, Reply


async def warm_up(
    like: HttpProbe, paths: Sequence[str], times: int, reach: Reach, *, tls: bool, limit: float
) -> WarmUp:
    """Ask by requests `like` this one, one after the other, for at most `limit` seconds."""
    loop, context = asyncio.get_running_loop(), trusting() if tls else None
    asked: list[tuple[int, bool, float]] = []  # in which round, whether well, and the seconds
    is_cut = False
    try:
        async with asyncio.timeout(limit):
            # All paths before any is repeated, as users would come.
            for number in range(times):
                for path in paths:
                    began = loop.time()
                    is_well = await _is_well(replace(like, path=path), reach, context)
                    asked.append((number, is_well, round(loop.time() - began, 6)))
    except TimeoutError:
        is_cut = True
    return WarmUp(
        requests=len(asked),
        failed=sum(not is_well for _, is_well, _ in asked),
        first=max((took for number, _, took in asked if number == 0), default=0.0),
        last=max((took for number, _, took in asked if number == times - 1), default=0.0),
        is_cut=is_cut,
    )


async def _is_well(request: HttpProbe, reach: Reach, tls: ssl.SSLContext | None) -> bool:
    reply = Reply()
    try:
        await get(await reach(), request, reply, tls)
    except (NoAnswer, ListenError, OSError, ValueError):  # as in Prober.ask()
        return False
    return reply.status < 500
