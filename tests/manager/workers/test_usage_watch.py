"""What a worker uses is looked at only where there is a limit, and told once when it is reached."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator

import pytest

from sockmgr.config.spec import Spec
from sockmgr.fleet.limits import Limit
from sockmgr.kernel.heartbeat import HeartbeatMemory
from sockmgr.kernel.process import Process
from sockmgr.manager.workers import usage_watch
from sockmgr.manager.workers.life import NOBODY
from sockmgr.manager.workers.usage_watch import UsageWatch
from sockmgr.worker import figures
from tests.helpers.children import python

HOLDS = """
import os, time
alive, ends = os.pipe()
if os.fork() == 0:
    os.close(ends)
    held = bytearray(b'x') * (64 << 20)
    print("held", flush=True)
    os.read(alive, 1)
    os._exit(0)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_watch, "PACE", 0.01)
    monkeypatch.setattr(usage_watch, "COST_SHARE", 1)


@pytest.fixture
def memory() -> Iterator[HeartbeatMemory]:
    memory = HeartbeatMemory.create()
    yield memory
    memory.close()


def spec(**limits: float) -> Spec:
    return Spec(service="web", argv=("x",), executable="/x", cwd="/", **limits)  # type: ignore[arg-type]


async def told(
    spec: Spec, process: Process, memory: HeartbeatMemory | None = None
) -> tuple[Limit, str] | None:
    """Return what is told of a worker, or None if the watch ends without."""
    found: list[tuple[Limit, str]] = []
    watch = UsageWatch("web@1.1", spec, lambda: process, memory, lambda *one: found.append(one))
    await watch.watch()
    return found[0] if found else None


def test_the_memory_of_a_worker_is_that_of_all_that_it_has_started() -> None:
    with python(HOLDS) as child:
        assert child.line() == "held"
        process = Process(child.pid)
        limit, why = asyncio.run(told(spec(max_rss=48 << 20), process)) or (None, "")
        os.close(process.pidfd)
    assert limit is Limit.RSS
    assert 64 <= int(why.removeprefix("max_rss reached: ").split("M of 48M")[0]) < 100


def test_the_requests_of_a_worker_are_those_that_it_has_counted(memory: HeartbeatMemory) -> None:
    words = {figures.MARK: figures.LAYOUT, figures.BEGUN: 100}
    for word, value in words.items():
        os.pwrite(memory.fd, value.to_bytes(8, "little"), 8 * word)
    process = Process(os.getpid())
    found = asyncio.run(told(spec(max_requests=100), process, memory))
    os.close(process.pidfd)
    assert found == (Limit.REQUESTS, "max_requests reached: 100 of 100")


@pytest.mark.parametrize("limit", ["max_rss", "max_cpu_time", "max_requests"])
def test_a_limit_of_a_worker_that_cannot_be_seen_has_no_effect_and_that_is_said_once(
    limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(told(spec(**{limit: 1}), NOBODY)) is None
    (record,) = caplog.records
    assert "limits have no effect" in record.getMessage()
    assert f"cannot_be_seen={limit}" in record.getMessage()


def test_without_a_limit_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(usage_watch, "_look", lambda pid, _: looks.append(pid))
    assert asyncio.run(told(spec(max_age=1.0), NOBODY)) is None
    assert not looks
