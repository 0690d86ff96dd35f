"""Own a worker's process by its pidfd: signal it, reap it, find what it left behind.

Never waits, starts nothing, and never signals a process that may have taken over a pid of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import stat
import struct
from collections.abc import Collection, Container
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel.procfs import children, exit_status, sockets_of, start_time
from sockmgr.log import Log

log = Log("sockmgr.process")

UNKNOWN_STATUS = 255  # of a process whose status only another parent could read, as in asyncio

_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT, _RAISE, _LOWER = 47, 2, 3
_PIDFD_SIGNAL_PROCESS_GROUP = 4  # Linux 6.9, pidfd_send_signal(2)
_PIDFD_GET_INFO = 0xC040FF0B  # Linux 6.13, linux/pidfd.h: struct pidfd_info, 64 bytes
_PIDFD_INFO_EXIT = 1 << 3  # Linux 6.15
_CAP_BPF = 39
_GOLDEN = 0.618033988749895  # multiples of it are spread evenly, modulo 1


def has_no_reader(pid: int, number: int) -> bool:
    """Tell whether this descriptor of a process is a pipe that nobody reads; False if unknown."""
    path, poll = Path(f"/proc/{pid}/fd/{number}"), select.poll()
    try:
        if not stat.S_ISFIFO(path.stat().st_mode):
            return False
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0) as pipe:
            poll.register(pipe, 0)
            return bool(poll.poll(0))  # POLLERR: poll(2)
    except OSError as error:
        return error.errno == errno.ENXIO  # of one with a name: fifo(7)


class Process:
    """One process, from right after its spawn until it is reaped. Owns the pidfd."""

    __slots__ = ("pid", "pidfd", "started", "status")

    def __init__(self, pid: int, *, pidfd: int | None = None) -> None:
        """Own a child that was just spawned, or any process by its `pidfd`; raise SpawnError.

        A child that cannot be watched is killed and reaped here, because nothing else would do it.
        """
        self.pid = pid
        self.pidfd = -1
        self.status: int | None = None
        self.started = start_time(pid)
        try:
            self.pidfd = os.pidfd_open(pid) if pidfd is None else pidfd
        except OSError as error:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise _explain(pid, error) from error

    @property
    def draw(self) -> float:
        """A number in [0, 1) that each manager gets for it; those of neighbours are far apart."""
        return (self.pid + self.started) * _GOLDEN % 1

    def is_child(self) -> bool:
        """Return whether it is a child of ours that is not reaped yet, and no other manager's."""
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def poll(self) -> int | None:
        """Reap it if it is dead; return its status as Popen.returncode does, None while it lives.

        Between the death (the pidfd becomes readable) and this call the pid cannot be given to
        another process: it is the last moment at which every kernel can signal the rest of its
        group.
        """
        if self.status is None:
            self.status = self._wait()
        return self.status

    def peek(self) -> int | None:
        """Return the status of a dead process as poll() does, but do not reap it yet."""
        return self._wait(os.WNOWAIT) if self.status is None else self.status

    def signal(self, number: int, flags: int = 0) -> bool:
        """Send it a signal; False if it is dead, or (logged) if that is not permitted."""
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, number, None, flags)
        except ProcessLookupError:
            return False
        except PermissionError as error:  # sudo and other programs that change their user
            log.error("cannot signal worker", pid=self.pid, error=error.strerror)
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Send a signal to its process group, and never to a later group of the same number."""
        try:
            return self.signal(number, _PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        # Before Linux 6.9. As long as the process is not reaped, no other group gets its number.
        if self.status is not None or not self.signal(0):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
            return True
        return False

    def close(self) -> None:
        """Close the pidfd; the process is not affected."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _wait(self, how: int = 0) -> int | None:
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | how)
        except ChildProcessError:  # adopted from another manager
            return self._status_of_a_stranger()
        return _returncode(result) if result else None

    def _status_of_a_stranger(self) -> int | None:
        watch = select.poll()
        watch.register(self.pidfd, select.POLLIN)
        if not watch.poll(0):
            return None
        # /proc shows the status until its parent reaps it, the pidfd from then on (Linux 6.15).
        zombie = exit_status(self.pid)
        info = bytearray(struct.pack("@Q56x", _PIDFD_INFO_EXIT))
        with contextlib.suppress(OSError):  # before Linux 6.13
            fcntl.ioctl(self.pidfd, _PIDFD_GET_INFO, info)
            if struct.unpack_from("@Q", info)[0] & _PIDFD_INFO_EXIT:
                return os.waitstatus_to_exitcode(struct.unpack_from("@i", info, 60)[0])
        return UNKNOWN_STATUS if zombie is None else zombie


def open_pidfd(pid: int, started: int) -> int | None:
    """Return a pidfd, the caller's, of the process that began at `started`; None if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, FileNotFoundError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: a thread has the number now
            raise
        return None
    # Compared after pidfd_open(2): if the pid had been reused before, the start time would differ.
    if start_time(pid) == started:
        return pidfd
    os.close(pidfd)
    return None


def send(pid: int, started: int, number: int) -> None:
    """Send a signal to the process that began at `started`, and never to another of that pid."""
    pidfd = None
    try:
        if (pidfd := open_pidfd(pid, started)) is not None:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    except OSError as error:  # not permitted, or no descriptor is left
        log.error("cannot signal process", pid=pid, error=error.strerror)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def kill_holder(pid: int, inodes: Collection[int]) -> bool:
    """Kill a process that has one of these sockets open; False if it has none, or is gone.

    The pid was seen before, and may have been reused: so the process is looked at again here.
    """
    started = start_time(pid)
    if not started or sockets_of(pid).isdisjoint(inodes):
        return False
    send(pid, started, signal.SIGKILL)
    return True


def pid_of(pidfd: int) -> int:
    """Return the pid of the process of a pidfd; 0 if it was reaped, or if `pidfd` is no pidfd."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines():
        if line.startswith("Pid:"):
            return max(0, int(line.split()[1]))
    return 0


def own_child(pidfd: int, group: int) -> Process | None:
    """Return a child of ours, made by a process of this `group`, in which the child still is.

    If it is no such child, or was reaped, return None and close `pidfd`: the process that passed
    `pidfd` may lie, and we must never signal a process that is not ours.
    """
    pid = pid_of(pidfd)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if pid and os.getpgid(pid) == group:
            return Process(pid, pidfd=pidfd)
    except OSError:  # it is not our child, is gone, or `pidfd` is no pidfd
        pass
    os.close(pidfd)
    return None


def _returncode(result: os.waitid_result) -> int:
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _explain(pid: int, error: OSError) -> SpawnError:
    what = f"cannot watch process {pid}: {error.strerror}"
    match error.errno:
        case errno.ENOSYS | errno.EPERM:
            do = "allow pidfd_open(2) in the seccomp filter of the container; it needs Linux 5.10"
        case errno.ESRCH:
            do = "SIGCHLD must not be ignored, and nobody else may reap the manager's children"
        case errno.EMFILE:
            do = "raise LimitNOFILE= of the manager"
        case _:
            do = ""
    return SpawnError(what, means="it was killed, since nobody could have managed it", do=do)


# --- The manager's own process -------------------------------------------------------------------


def reset_signals(blocked: Collection[signal.Signals] = ()) -> None:
    """Undo what our parent ignored or blocked, and block only these signals; call it at the start.

    If SIGCHLD is ignored, the kernel reaps our children by itself (wait(2)), and their status is
    lost.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def become_subreaper() -> None:
    """Become the parent of descendants whose own parent ends, so that we can see and reap them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def withhold_bpf() -> None:
    """Keep CAP_BPF, if AmbientCapabilities= gave it to us, from programs that we start.

    It stays in our own permitted and effective set: capabilities(7). Concerns this thread, and
    those that it starts later.
    """
    _prctl(_PR_CAP_AMBIENT, _LOWER, _CAP_BPF)


def hand_on_bpf() -> None:
    """Undo withhold_bpf(), so that the program which we become by execve(2) has CAP_BPF, too."""
    with contextlib.suppress(PermissionError):  # we do not have CAP_BPF
        _prctl(_PR_CAP_AMBIENT, _RAISE, _CAP_BPF)


def _prctl(option: int, first: int, second: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (ctypes.c_ulong(word) for word in (first, second, 0, 0))
    if libc.prctl(option, *words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def reap_strays(known: Container[int]) -> list[tuple[int, int]]:
    """Reap every dead child whose pid is not `known`; return (pid, status as Popen.returncode)."""
    reaped: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):  # no children at all
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return reaped
    # One by one: waitid(P_ALL) would return a dead worker, which is not to be reaped here, forever.
    for pid in children(os.getpid()):
        if pid not in known:
            with contextlib.suppress(ChildProcessError):
                result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
                if result:
                    reaped.append((pid, _returncode(result)))
    return reaped
