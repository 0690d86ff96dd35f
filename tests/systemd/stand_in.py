"""A manager in small: `stand_in.py DIRECTORY WORKER…`. Runs as a service of a machine.

It has what a manager leaves to the next: workers (each WORKER are the arguments of one), their
state, a guard, all of it in the fd store, and a process that belongs to no worker. Whoever finds
that takes it over; TERM has it leave and leave all of it, USR1 end the workers and leave. What
happened is in DIRECTORY/diary.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sockmgr.manager.takeover.guard import Guard
from sockmgr.systemd.passed import passed_descriptors
from sockmgr.systemd.protocol import SystemdSocket
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import ending, fd_store_max
from tests.helpers.children import wait_until
from tests.helpers.states import memfd, state, worker

draining = str(Path(__file__).parents[1] / "helpers" / "draining.py")


def main(directory: Path, arguments: Sequence[str]) -> None:
    """Begin, or go on, and wait to be told to end."""
    diary = (directory / "diary").open("a", buffering=1)
    channel = SystemdSocket()
    store = FdStore(channel, fd_store_max())
    guard = Guard(os.environ.get("GUARD_PYTHON", sys.executable))
    passed = passed_descriptors()
    print("manager", os.getpid(), "limit", store.limit, file=diary)
    workers: list[subprocess.Popen[bytes]] = []
    if "@lease" in passed:
        store.inherit(passed)
        print("adopted", guard.adopt(socket.socket(fileno=passed["@lease"][0])), file=diary)
    else:
        workers = [_start(Path(diary.name), text) for text in arguments]
        subprocess.run(["setsid", "--fork", "sleep", "1000"], check=True)  # belongs to nobody
        _keep(store, guard, workers)
    # Not before: what was started would have inherited that.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    channel.wait_until_read(10)
    channel.send("READY=1")
    number = signal.sigwait({signal.SIGTERM, signal.SIGUSR1})
    print("ending", ending().value, file=diary)
    if number == signal.SIGUSR1:
        for each in workers:
            each.kill()
            each.wait()
        guard.dismiss()


def _start(diary: Path, text: str) -> subprocess.Popen[bytes]:
    before = diary.read_text().count("ready\n")
    with diary.open("a") as output:
        child = subprocess.Popen(
            [sys.executable, draining, *text.split()], stdout=output, process_group=0
        )
    wait_until(lambda: diary.read_text().count("ready\n") > before, what=f"worker {text}")
    return child


def _keep(store: FdStore, guard: Guard, workers: Sequence[subprocess.Popen[bytes]]) -> None:
    states = [
        memfd(b""),
        memfd(
            state(
                [worker(each.pid) for each in workers],
                stop_signal=signal.SIGQUIT,
                drain_timeout=float(os.environ.get("DRAIN_TIMEOUT", "20")),
            )
        ),
    ]
    guard.start(states)
    store.keep("@state", states)
    store.keep("@lease", [guard.fileno()])
    for each in workers:
        store.keep(f"web@1.{each.pid}", [os.pidfd_open(each.pid)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
