"""The sign of life of this process: an instant in memory that it shares with its manager.

To write it costs no system call and wakes nobody; the manager looks when it is time to. The memory
holds four 64-bit integers of this machine: the instant of the last beat (CLOCK_MONOTONIC, in
nanoseconds), the signal at which the process prints its stacks (0: none), the pid, and 0.
"""

from __future__ import annotations

import mmap
import os
import signal
import time

from sockmgr.worker import notify

VARIABLE = "SOCKMGR_HEARTBEAT"  # FD:SECONDS, the memory and the time after which we count as hung
NAME = "sockmgr-heartbeat"
SIZE = 32
# Real-time signals have no fixed meaning (signal(7)); glibc keeps 32 and 33, systemd uses +0 to +29
# for the manager's own process, not for that of a service.
STACKS_SIGNAL = signal.SIGRTMIN + 8
_BEAT, _SIGNAL, _PID = range(3)

_open: dict[int, Heartbeat | None] = {}  # by pid: a fork must not beat for its parent


class Heartbeat:
    """The memory, mapped. `limit`: seconds without a beat after which the manager acts."""

    def __init__(self, fd: int, limit: float) -> None:
        """Map `fd`; arrange that the manager can have our stacks printed.

        `fd` stays open: by it, the next manager finds the memory.
        """
        self.limit = limit
        os.set_inheritable(fd, False)
        self._words = memoryview(mmap.mmap(fd, SIZE)).cast("q")
        self._words[_PID] = os.getpid()
        self._words[_SIGNAL] = _print_stacks_on_signal()

    def beat(self) -> None:
        """Say that we are alive."""
        self._words[_BEAT] = time.monotonic_ns()


def watchdog() -> float | None:
    """Say that this program is alive; return the seconds after which to say so again.

    None if nobody wants to know. Call it from where the work is done (the event loop, the main
    loop), never from a thread made for it: that would live on while the work hangs. The first call
    makes the process print the stacks of its threads to stderr on a signal, which the manager
    sends before it replaces a worker that was silent for `hang_timeout`.
    """
    pid = os.getpid()
    if pid not in _open:
        _open[pid] = None if _open else _from_environment()
    if heartbeat := _open[pid]:
        heartbeat.beat()
        return heartbeat.limit / 4
    return _of_systemd(pid)


def _from_environment() -> Heartbeat | None:
    number, _, limit = os.environ.get(VARIABLE, "").partition(":")
    try:
        fd, seconds = int(number), float(limit)
        # A child inherits the variable, but not the descriptor: the number may be another file.
        ours = os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{NAME}")  # noqa: PTH115
    except (ValueError, OSError):
        return None
    return Heartbeat(fd, seconds) if ours else None


def _of_systemd(pid: int) -> float | None:
    """Do what sd_watchdog_enabled(3) asks for, if this process is meant."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if (
        not wanted.isdecimal()
        or len(wanted) > 20
        or os.environ.get("WATCHDOG_PID", str(pid)) != str(pid)
    ):
        return None
    notify.send("WATCHDOG=1")
    return int(wanted) / 2_000_000  # half of it, as that page recommends


def _print_stacks_on_signal() -> int:
    """Return the signal at which faulthandler prints from now on, 0 if the program uses it."""
    if signal.getsignal(STACKS_SIGNAL) is not signal.SIG_DFL:
        return 0
    import faulthandler  # noqa: PLC0415 - only what has a heartbeat needs it

    try:
        faulthandler.register(STACKS_SIGNAL, all_threads=True)
    except (OSError, RuntimeError, ValueError, AttributeError):  # no stderr, or one without fileno
        return 0
    return STACKS_SIGNAL
