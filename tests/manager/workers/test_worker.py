"""A worker that has ended is reaped when its output has been read, and soon in any case."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from sockmgr.config.spec import Delay, Spec
from sockmgr.errors import ListenError
from sockmgr.fleet.messages import Fact, Spawn, WorkerExited, WorkerId
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers import exit as module
from sockmgr.manager.workers.boot_priority import Boots
from sockmgr.manager.workers.context import Assignment, WorkerContext
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.lookout import Lookout
from sockmgr.manager.workers.worker import WorkerProcess
from tests.helpers.dispatching import a_dispatcher
from tests.helpers.work import calls

SPEC = Spec(
    service="web", argv=("sh", "-c", "exit 3"), executable="/bin/sh", cwd="/",
    ready=Delay(seconds=1000.0), ready_timeout=2000.0,
)  # fmt: skip
EXITED = WorkerExited(worker=WorkerId(1, 1), status=3)


class SlowOutput:
    """An output that somebody else reads, whenever the test says so."""

    environment: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.writer = os.open(os.devnull, os.O_WRONLY)
        self.ends, self.stdout = (self.writer, self.writer), None
        self.how = asyncio.Queue[str]()
        self.read = False

    def spawned(self) -> None:
        """Keep it."""

    def fileno(self) -> int:
        return self.writer

    def last_words(self, why: str) -> LastWords:
        return LastWords(lines=(why,))

    def ended(self, how: str) -> None:
        self.how.put_nowait(how)

    def has_been_read(self) -> bool:
        return self.read

    def close(self) -> None:
        os.close(self.writer)


async def no_way(listener: Listener) -> socket.socket:
    raise ListenError(f"there is no way to {listener.address}")


async def started(
    output: SlowOutput, facts: asyncio.Queue[Fact], family: Family | None = None
) -> WorkerProcess:
    loop = asyncio.get_running_loop()
    context = WorkerContext(
        loop=loop, sink=Sink(), output=lambda *_: output, notify_address=str,
        boots=Boots(loop, can_lower=False), family=family or Family(), lookout=Lookout(loop),
        dispatcher=a_dispatcher(),
    )  # fmt: skip
    command = Spawn(worker=EXITED.worker, spec=SPEC, lease=0, background=False)
    assignment = Assignment(
        command=command, listeners=(), context=context, put=facts.put_nowait, reach=no_way,
        asks=lambda: True, is_fed=lambda: False,
    )  # fmt: skip
    return WorkerProcess.spawned(assignment)


def test_a_worker_is_not_reaped_and_its_end_is_not_told_before_its_output_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT", 1000.0)

    async def scenario() -> None:
        output, facts = SlowOutput(), asyncio.Queue[Fact]()
        running = await started(output, facts)
        assert await output.how.get() == "exited with status 3"
        assert facts.empty()
        assert Path(f"/proc/{running.pid}/cgroup").read_text()  # what journald asks for
        output.read = True
        assert await facts.get() == EXITED
        assert not Path(f"/proc/{running.pid}").exists()
        running.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_the_end_of_a_worker_that_is_killed_when_it_has_ended_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT", 1000.0)

    async def scenario() -> None:
        output, facts = SlowOutput(), asyncio.Queue[Fact]()
        running = await started(output, facts)
        await output.how.get()  # it is dead, nobody is left, and its output is still to be read
        running.kill()
        assert output.how.empty()
        output.read = True
        assert await facts.get() == EXITED
        running.kill()  # it has no pid any more, and its fleet has not heard so yet
        assert output.how.empty()
        assert facts.empty()
        running.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_the_end_of_a_worker_is_told_though_nobody_reads_its_output() -> None:
    async def scenario() -> None:
        output, facts = SlowOutput(), asyncio.Queue[Fact]()
        running = await started(output, facts)
        assert await facts.get() == EXITED
        assert not Path(f"/proc/{running.pid}").exists()
        running.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


class Other:
    """A worker that runs beside, as far as the family knows it."""

    user = 0

    def __init__(self, pid: int) -> None:
        self.pid = pid


def known(family: Family, others: int) -> None:
    for number in range(others):
        family.join_worker(cast("WorkerProcess", Other((1 << 22) + number)))


def test_the_start_and_the_end_of_a_worker_cost_the_same_beside_many_others() -> None:
    async def life(others: int) -> None:
        family = Family()
        known(family, others)
        output, facts = SlowOutput(), asyncio.Queue[Fact]()
        output.read = True
        running = await started(output, facts, family)
        assert await facts.get() == EXITED
        running.close()

    def work(others: int) -> int:
        runs = [calls(lambda: asyncio.run(life(others))) for _ in range(3)]
        return min(runs) - others * calls(lambda: known(Family(), 1))

    work(1)  # what is imported, and asked for once
    assert work(500) < work(5) + 250
