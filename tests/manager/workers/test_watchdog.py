"""Whether a worker hangs, by what it writes into the memory that it shares with the manager."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator

import pytest

from sockmgr.kernel.heartbeat import Beat, HeartbeatMemory, environment
from sockmgr.manager.workers.watchdog import Watchdog
from tests.helpers.children import python

BEATING = """
from sockmgr import worker
worker.watchdog()
print("beats", flush=True)
import time
time.sleep(60)
"""


@pytest.fixture
def memory() -> Iterator[HeartbeatMemory]:
    memory = HeartbeatMemory.create()
    yield memory
    memory.close()


def write(memory: HeartbeatMemory, at: float, number: int = 0, pid: int = 1) -> None:
    words = (int(at * 1e9), number, pid, 0)
    os.pwrite(memory.fd, b"".join(word.to_bytes(8, "little", signed=True) for word in words), 0)


def test_what_a_worker_writes_is_read_and_found_again_by_its_pid(memory: HeartbeatMemory) -> None:
    env = os.environ | environment(3, 8.0, has_figures=False)
    with python(BEATING, fds=[memory.fd], env=env) as child:
        assert child.line() == "beats"
        beat = memory.read()
        assert (beat.pid, beat.stacks_signal > 0) == (child.pid, True)
        assert 0 <= time.monotonic() - beat.at < 60
        again = HeartbeatMemory.of(child.pid, 3)
        assert again is not None
        assert again.read() == beat
        again.close()
        assert HeartbeatMemory.of(child.pid, 1) is None
    assert HeartbeatMemory.of(child.pid, 3) is None


def test_nonsense_in_the_memory_is_no_sign_of_life_and_no_signal(memory: HeartbeatMemory) -> None:
    assert memory.read() == Beat(at=0.0, pid=0, stacks_signal=0)
    write(memory, -5.0, 2**40)
    assert memory.read() == Beat(at=0.0, pid=1, stacks_signal=0)
    write(memory, time.monotonic() + 1000)
    assert memory.read().at <= time.monotonic()
    os.truncate(memory.fd, 3)
    assert memory.read() == Beat(at=0.0, pid=0, stacks_signal=0)


async def until(fact: Callable[[], bool]) -> None:
    while not fact():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)


async def watched(memory: HeartbeatMemory, limit: float) -> tuple[Watchdog, asyncio.Future[Beat]]:
    loop = asyncio.get_running_loop()
    hung: asyncio.Future[Beat] = loop.create_future()
    pulse = Watchdog("web@1.1", limit, memory, loop, lambda beat, _: hung.set_result(beat))
    pulse.start()
    return pulse, hung


def test_a_worker_that_is_silent_is_told_of_and_one_that_beats_is_not() -> None:
    async def scenario() -> None:
        silent, beating = HeartbeatMemory.create(), HeartbeatMemory.create()
        write(silent, time.monotonic())
        write(beating, time.monotonic() + 1000)  # it counts as an instant ago, whenever one looks
        first, hung = await watched(silent, 0.05)
        second, never = await watched(beating, 0.05)
        assert (await hung).at > 0
        assert not never.done()
        first.stop()
        second.stop()
        silent.close()
        beating.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_machine_that_was_frozen_does_not_make_its_workers_hang() -> None:
    async def scenario() -> None:
        memory = HeartbeatMemory.create()
        write(memory, time.monotonic() / 2)  # all the time since, nobody ran
        pulse, hung = await watched(memory, 0.2)
        await until(lambda: pulse._suspected is not None)
        write(memory, time.monotonic() + 1000)
        await until(lambda: pulse._suspected is None)
        assert not hung.done()
        pulse.stop()
        memory.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_program_without_a_heartbeat_is_left_alone_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        memory = HeartbeatMemory.create()
        pulse, hung = await watched(memory, 0.01)
        await until(lambda: "worker has no heartbeat" in caplog.text)
        assert not hung.done()
        pulse.stop()
        memory.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
