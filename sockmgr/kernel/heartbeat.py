"""The memory in which a worker says that it is alive (sockmgr/worker/heartbeat.py). Owns a memfd.

To read it is one system call, and wakes nobody.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass

from sockmgr.errors import SpawnError
from sockmgr.kernel.regular import open_regular
from sockmgr.worker.heartbeat import NAME, SIZE, VARIABLE

_WORDS = struct.Struct("@4q")
_SIGNALS = range(1, 65)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The last sign of life: when, of which process, and at which signal it prints its stacks.

    `at` is an instant of CLOCK_MONOTONIC in seconds, 0 if there was none; `stacks_signal` is 0 if
    there is none.
    """

    at: float
    pid: int
    stacks_signal: int


class HeartbeatMemory:
    """The memory of one worker. `fd` is ours until `close`."""

    def __init__(self, fd: int) -> None:
        """Own `fd`."""
        self.fd = fd

    @classmethod
    def create(cls) -> HeartbeatMemory:
        """Make an empty one, to be passed to a worker; raises SpawnError."""
        try:
            memory = cls(os.memfd_create(NAME, os.MFD_CLOEXEC))
        except OSError as error:
            raise SpawnError(
                f"cannot make the memory of its heartbeat: {error.strerror}",
                do="raise LimitNOFILE= of the manager, or set hang_timeout = 0",
            ) from error
        os.truncate(memory.fd, SIZE)
        return memory

    @classmethod
    def of(cls, pid: int, number: int) -> HeartbeatMemory | None:
        """Open the one that process `pid` has as descriptor `number`; None if it has none there.

        The name cannot be trusted, but what is read there concerns that process only.
        """
        path = f"/proc/{pid}/fd/{number}"
        try:
            if not os.readlink(path).startswith(f"/memfd:{NAME}"):  # noqa: PTH115
                return None
            return cls(open_regular(path))
        except OSError:  # gone, or ptrace(2) rules forbid it
            return None

    def read(self) -> Beat:
        """Return what the worker said last."""
        data = os.pread(self.fd, SIZE, 0)
        if len(data) < SIZE:  # it made the file shorter
            return Beat(at=0.0, pid=0, stacks_signal=0)
        at, number, pid, _ = _WORDS.unpack(data)
        return Beat(
            at=min(at / 1e9, time.monotonic()) if at > 0 else 0.0,
            pid=pid,
            stacks_signal=number if number in _SIGNALS else 0,
        )

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def environment(number: int, limit: float) -> dict[str, str]:
    """Return the variable that tells a worker of the memory at descriptor `number`."""
    return {VARIABLE: f"{number}:{limit:g}"}
