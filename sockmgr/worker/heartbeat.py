"""The heartbeat of this process: an instant in memory that it shares with its manager.

Writing it costs no system call and wakes nobody; the manager reads it when the time has come. The
memory holds four 64-bit integers in native byte order: the instant of the last beat
(CLOCK_MONOTONIC, in nanoseconds), the signal at which the process prints its stacks (0: none), the
pid, and whether figures.py writes behind them (0: no).
"""

from __future__ import annotations

import mmap
import os
import signal
import time

from sockmgr.worker import notify

VARIABLE = "SOCKMGR_HEARTBEAT"  # FD:SECONDS, the memory and the time without a beat that is a hang
NAME = "sockmgr-heartbeat"
SIZE = 32
# Real-time signals have no fixed meaning, signal(7). glibc reserves 32 and 33. systemd gives
# SIGRTMIN+0 to +29 a meaning only when they are sent to systemd itself, not to a service.
STACKS_SIGNAL = signal.SIGRTMIN + 8
_BEAT, _SIGNAL, _PID = range(3)

_open: dict[int, Heartbeat | None] = {}  # by pid: a fork must not beat for its parent


class Heartbeat:
    """The mapped memory. After `limit` seconds without a beat the manager replaces this process."""

    def __init__(self, fd: int, limit: float) -> None:
        """Map `fd`, and have this process print its stacks when the manager sends a signal.

        `fd` stays open, because the next manager finds the memory by it.
        """
        self.limit = limit
        os.set_inheritable(fd, False)
        self._words = memoryview(mmap.mmap(fd, SIZE)).cast("q")
        self._words[_PID] = os.getpid()
        self._words[_SIGNAL] = _print_stacks_on_signal()

    def beat(self) -> None:
        self._words[_BEAT] = time.monotonic_ns()


def watchdog() -> float | None:
    """Report that this program is alive; return the seconds after which to report it again.

    Returns None if no manager watches. Call this where the work is done (in the event loop, the
    main loop), never in a thread of its own, which would live on while the work hangs. The first
    call makes the process print the stacks of its threads to stderr on a signal, which the manager
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
    except ValueError:
        return None
    return Heartbeat(fd, seconds) if is_memory(fd) else None


def is_memory(fd: int) -> bool:
    """Return whether descriptor `fd` of this process is the memory.

    A child process inherits the variable but not the descriptor, so its number may be reused.
    """
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{NAME}")  # noqa: PTH115
    except OSError:
        return False


def _of_systemd(pid: int) -> float | None:
    """Do what sd_watchdog_enabled(3) asks for, unless WATCHDOG_PID is another process."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if (
        not wanted.isdecimal()
        or len(wanted) > 20
        or os.environ.get("WATCHDOG_PID", str(pid)) != str(pid)
    ):
        return None
    notify.send("WATCHDOG=1")
    return int(wanted) / 2_000_000  # half the time in seconds, as that page recommends


def _print_stacks_on_signal() -> int:
    """Return the signal at which faulthandler prints from now on, 0 if the program handles it."""
    if signal.getsignal(STACKS_SIGNAL) is not signal.SIG_DFL:
        return 0
    import faulthandler  # noqa: PLC0415 - only what has a heartbeat needs it

    try:
        faulthandler.register(STACKS_SIGNAL, all_threads=True)
    except (OSError, RuntimeError, ValueError, AttributeError):  # no stderr, or no fileno() of it
        return 0
    return STACKS_SIGNAL
