"""Start real children for the tests of kernel/, hear what they print, and leave none behind."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sockmgr.kernel.process import Process
from sockmgr.kernel.spawn import Launch, spawn

PATIENCE = 30.0


def wait_until(fact: Callable[[], object], *, what: str) -> None:
    """Look until `fact` is true; fail after a time that no working machine needs."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true: {what}")
        time.sleep(0.002)


def wait_for_exit(process: Process) -> int:
    """Wait on the pidfd, then reap."""
    watch = select.poll()
    watch.register(process.pidfd, select.POLLIN)
    assert watch.poll(PATIENCE * 1000), f"process {process.pid} goes on"
    status = process.poll()
    assert status is not None
    return status


@dataclass
class Child:
    """A running child and what it prints on stdout and stderr."""

    process: Process
    output: io.BufferedReader

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """Return the next line that it prints."""
        return self.output.readline().decode().removesuffix("\n")

    def rest(self) -> str:
        """Return all that it prints until its end."""
        return self.output.read().decode()


@contextlib.contextmanager
def running(
    argv: Sequence[str], *, executable: str = "", fds: Sequence[int] = (), **more: Any
) -> Iterator[Child]:
    """Run a command with `fds` as 3, 4, ...; kill its whole group in the end."""
    more = {"env": dict(os.environ), "cwd": str(Path.cwd()), "set_listen_pid": False} | more
    reader, writer = os.pipe()
    with open(reader, "rb") as output:  # noqa: PTH123
        try:
            launch = Launch(
                argv=argv,
                executable=executable or argv[0],
                fds=fds,
                stdout=writer,
                stderr=writer,
                **more,
            )
            process = Process(spawn(launch))
        finally:
            os.close(writer)
        try:
            yield Child(process, output)
        finally:
            process.signal_group(signal.SIGKILL)
            process.signal(signal.SIGKILL)
            wait_for_exit(process)
            process.close()


def python(program: str, **more: Any) -> contextlib.AbstractContextManager[Child]:
    """Run a Python program; it need not flush what it prints."""
    return running([sys.executable, "-u", "-c", program], **more)


def open_fds() -> set[str]:
    """Return what descriptors this process has open, but for the one of the listing."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{link.name} {link.readlink()}")
    return found


def children() -> set[int]:
    """Return the children of this process, those that are dead and not reaped too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return found
