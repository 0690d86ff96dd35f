"""Processes of which no state tells finish what they have accepted, and end."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import Spec
from sockmgr.fleet.snapshot import ProcessSnapshot
from sockmgr.kernel.process import Process
from sockmgr.manager.takeover.strangers import end_strangers
from sockmgr.manager.workers.survivor import Survivor
from tests.helpers.children import Child, python, wait_for_exit
from tests.helpers.dispatching import until
from tests.helpers.listeners import connect, opened, tcp

# Accepts one client, says so, and answers when it gets QUIT, a little later; it is deaf to TERM.
SERVES = """
import os, signal, socket, sys, time
signal.signal(signal.SIGQUIT, lambda *_: (time.sleep(0.3), client.sendall(b"yes"), sys.exit()))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
client = socket.socket(fileno=3).accept()[0]
print("has it", flush=True)
while True:
    signal.pause()
"""
SPEC = Spec(
    service="web", argv=("x",), executable="/x", cwd="/", drain_timeout=30.0,
    stop_signal=signal.SIGQUIT,
)  # fmt: skip


def stored(child: Child) -> Survivor:
    process = Process(child.pid, pidfd=os.pidfd_open(child.pid))
    was = ProcessSnapshot(pid=process.pid, started=process.started)
    return Survivor(process=process, outputs=(os.open("/dev/null", os.O_RDONLY), -1), since=0.0,
                    was=was)  # fmt: skip


async def until_closed(survivor: Survivor) -> None:
    await until(lambda: survivor.process.pidfd < 0, what="the end of the stranger is seen")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(survivor.outputs[0])


def test_a_stranger_finishes_what_it_has_accepted_by_the_stop_signal_of_its_service() -> None:
    async def main() -> bytes:
        with (
            opened(tcp()) as listener,
            connect(listener) as client,
            python(SERVES, fds=[listener.queues[0].fileno()]) as child,
        ):
            assert child.line() == "has it"
            survivor = stored(child)
            end_strangers([(SPEC, [survivor], set())], {os.getpid()})
            await until_closed(survivor)
            client.settimeout(10)
            return client.recv(10)

    assert asyncio.run(main()) == b"yes"


def test_a_stranger_that_hears_no_stop_signal_is_killed_after_drain_timeout() -> None:
    async def main() -> int:
        spec = replace(SPEC, stop_signal=signal.SIGTERM, drain_timeout=0.5)
        with (
            opened(tcp()) as listener,
            connect(listener),
            python(SERVES, fds=[listener.queues[0].fileno()]) as child,
        ):
            assert child.line() == "has it"
            began, survivor = time.monotonic(), stored(child)
            end_strangers([(spec, [survivor], set())], {os.getpid()})
            await until_closed(survivor)
            assert time.monotonic() - began >= 0.5
            return wait_for_exit(child.process)

    assert asyncio.run(main()) == -signal.SIGKILL
