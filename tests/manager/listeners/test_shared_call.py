"""Who asks before a blocking call begins shares it, and nobody gets an answer from before."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sockmgr.manager.listeners.shared_call import SharedCall


def test_those_who_ask_while_a_call_goes_on_share_the_next_one() -> None:
    began, go_on = threading.Semaphore(0), threading.Semaphore(0)
    calls: list[int] = []

    def call() -> int:
        calls.append(len(calls))
        began.release()
        assert go_on.acquire(timeout=30)
        return calls[-1]

    async def scenario() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        shared = SharedCall(call)
        first = asyncio.create_task(shared())
        await asyncio.sleep(0)
        assert began.acquire(timeout=30)
        others = [asyncio.create_task(shared()) for _ in range(50)]
        await asyncio.sleep(0)
        others[7].cancel()
        go_on.release()
        assert await first == 0
        go_on.release()
        found = await asyncio.gather(*others, return_exceptions=True)
        assert [each for each in found if each != 1] == [found[7]]
        assert isinstance(found[7], asyncio.CancelledError)
        assert calls == [0, 1]

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_what_a_call_raises_all_who_share_it_get() -> None:
    def refused() -> None:
        raise PermissionError("sock_diag")

    async def scenario() -> None:
        shared = SharedCall(refused)
        found = await asyncio.gather(shared(), shared(), return_exceptions=True)
        assert [type(each) for each in found] == [PermissionError, PermissionError]
        with pytest.raises(PermissionError):
            await shared()

    asyncio.run(asyncio.wait_for(scenario(), 60))
