"""A helper that ended is started again at once, but one that keeps ending not in a tight loop."""

from __future__ import annotations

import asyncio

from sockmgr.manager.restarts import DELAY_MAX, Restarts


def test_the_first_successor_is_started_at_once_and_those_after_it_ever_later() -> None:
    async def scenario() -> None:
        started = asyncio.Event()
        restarts = Restarts()
        assert restarts.plan(started.set) == 0.0
        await started.wait()
        delays = [restarts.plan(started.set) for _ in range(12)]
        assert delays == sorted(delays)
        assert delays[0] == 0.2
        assert delays[-1] == DELAY_MAX
        restarts.cancel()

    asyncio.run(scenario())


def test_nothing_is_started_once_all_is_over() -> None:
    async def scenario() -> None:
        started: list[None] = []
        restarts = Restarts()
        restarts.plan(lambda: started.append(None))
        restarts.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert started == []

    asyncio.run(scenario())
