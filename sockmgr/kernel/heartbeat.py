"""Read the memory into which a worker writes signs of life and figures. Owns a memfd.

Reading it is one system call and wakes no process. worker/heartbeat and worker/figures write it.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass

from sockmgr.api.figures import Figures
from sockmgr.errors import SpawnError
from sockmgr.kernel.regular import open_regular
from sockmgr.worker import figures
from sockmgr.worker.heartbeat import NAME, SIZE, VARIABLE

_WORDS = struct.Struct("@4q")
_FIGURES = struct.Struct(f"@{figures.SIZE // 8}q")
_SIGNALS = range(1, 65)
_PLAUSIBLE = 1 << 40  # a worker counts less in its life, and the sums of many fit into 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The last sign of life of a worker.

    `at` is its time by CLOCK_MONOTONIC in seconds, 0 if there was none yet; `pid` is the process
    that gave it. At `stacks_signal` that process prints its stacks; 0 if it has no such signal.
    """

    at: float
    pid: int
    stacks_signal: int


class HeartbeatMemory:
    """The heartbeat memory of one worker. It owns `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> HeartbeatMemory:
        """Make an empty memory, whose `fd` is to be passed to a worker; raise SpawnError."""
        try:
            memory = cls(os.memfd_create(NAME, os.MFD_CLOEXEC))
        except OSError as error:
            raise SpawnError(
                f"cannot make the memory of its heartbeat: {error.strerror}",
                do="raise LimitNOFILE= of the manager",
            ) from error
        os.truncate(memory.fd, figures.SIZE)
        return memory

    @classmethod
    def of(cls, pid: int, number: int) -> HeartbeatMemory | None:
        """Open the memory that process `pid` has as descriptor `number`; None if it has none.

        A worker may fake the name of its memfd, but the content is only about that worker.
        """
        path = f"/proc/{pid}/fd/{number}"
        try:
            if not os.readlink(path).startswith(f"/memfd:{NAME}"):  # noqa: PTH115
                return None
            return cls(open_regular(path))
        except OSError:  # gone, or ptrace(2) rules forbid it
            return None

    def read(self) -> Beat:
        data = os.pread(self.fd, SIZE, 0)
        if len(data) < SIZE:  # the worker truncated the file
            return Beat(at=0.0, pid=0, stacks_signal=0)
        at, number, pid, _ = _WORDS.unpack(data)
        return Beat(
            at=min(at / 1e9, time.monotonic()) if at > 0 else 0.0,
            pid=pid,
            stacks_signal=number if number in _SIGNALS else 0,
        )

    def figures(self) -> Figures | None:
        """Return what the worker has counted; None if it counts nothing, or writes nonsense."""
        data = os.pread(self.fd, figures.SIZE, 0)
        if len(data) < figures.SIZE:  # by an earlier version, or the worker truncated the file
            return None
        words = _FIGURES.unpack(data)
        counts = words[figures.BEGUN :]
        # As a whole, which takes a third of a look at each: a status reads those of all workers.
        is_plausible = min(counts) >= 0 and max(counts) < _PLAUSIBLE
        if words[figures.MARK] != figures.LAYOUT or not is_plausible:
            return None
        return Figures(begun=counts[0], failed=counts[1], times=counts[2:])

    def close(self) -> None:
        """Close the memfd; the worker has its own descriptor."""
        os.close(self.fd)


def environment(number: int, limit: float | None, *, has_figures: bool) -> dict[str, str]:
    """Return the variables by which a worker finds its memory, and its hang_timeout in seconds.

    `number` is the descriptor of the memory in the worker, `limit` the timeout, if it has one.
    """
    beats = {VARIABLE: f"{number}:{limit:g}"} if limit else {}
    return beats | ({figures.VARIABLE: str(number)} if has_figures else {})
