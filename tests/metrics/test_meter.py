"""What workers use, measured on real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sockmgr.api.types import ListenerStatus, ManagerStatus, ServiceStatus, Status, WorkerStatus
from sockmgr.metrics.meter import Meter
from tests.e2e.harness import wait_for

# Says when it has burnt CPU, here and in a child; then it waits to be ended, with what it inherits.
BURN = """
import os, sys, time
def burn():
    while time.process_time() < 0.2:
        pass
if os.fork() == 0:
    burn()
    os._exit(0)
os.wait()
burn()
held = bytearray(30_000_000)
print("burnt", flush=True)
sys.stdin.read()
"""


@contextmanager
def burning(*fds: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", BURN],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout
        assert process.stdout.readline() == "burnt\n"
        yield process


def status(pid: int, address: str = "tcp://127.0.0.1:1") -> Status:
    worker = WorkerStatus(slot=1, generation=1, pid=pid, state="ready", rss=0, age=1.0)
    return Status(
        manager=ManagerStatus(pid=os.getpid(), version="1"),
        listeners={"http": ListenerStatus(address=address, queue=0, backlog=1, cutover="steered")},
        services={"web": ServiceStatus(generation=1, state="serving", workers=(worker,))},
    )


def test_cpu_is_first_that_since_the_start_and_then_that_since_the_last_look() -> None:
    with burning() as process:
        meter = Meter()

        def cpu() -> float | None:
            return meter.measure(status(process.pid))[1]["web@1.1"].cpu

        since_start = cpu()
        assert since_start is not None
        assert since_start > 0
        wait_for(lambda: cpu() == 0.0, "a look at a process that only waits")


def test_memory_is_that_of_the_worker_and_of_the_manager() -> None:
    with burning() as process:
        manager, usage = Meter().measure(status(process.pid))
        worker = usage["web@1.1"]
        assert worker.rss is not None
        assert worker.pss is not None
        assert 30_000_000 < worker.pss <= worker.rss < 200_000_000
        assert manager.rss


def test_connections_are_those_that_the_worker_holds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with socket.create_connection((host, port)), socket.create_connection((host, port)):
            one, _ = listener.accept()
            two, _ = listener.accept()
            with one, two, burning(listener.fileno(), one.fileno()) as process:
                address = f"tcp://{host}:{port}"
                assert Meter().measure(status(process.pid, address))[1]["web@1.1"].connections == 1


def test_of_a_worker_that_is_gone_nothing_is_told() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    usage = Meter().measure(status(process.pid))[1]["web@1.1"]
    assert (usage.cpu, usage.rss, usage.pss, usage.connections) == (None, None, None, None)
