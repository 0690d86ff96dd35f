"""Own a worker's process by its pidfd: signal it, reap it, find what it left behind.

Never waits for anybody, starts nothing, and never signals a process that could be a stranger's.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import threading
from collections.abc import Collection, Container
from pathlib import Path

from sockmgr.errors import SpawnError
from sockmgr.kernel.capabilities import CAP_SYS_NICE, has_capability
from sockmgr.kernel.procfs import children, descendants, sockets_of, start_time
from sockmgr.log import Log

log = Log("sockmgr.process")

# Of a process that is not our child and whose end nobody can tell any more (as asyncio has it).
UNKNOWN_STATUS = 255
LOW_PRIORITY = 19

_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT, _RAISE, _LOWER = 47, 2, 3
_PIDFD_SIGNAL_PROCESS_GROUP = 4  # Linux 6.9, pidfd_send_signal(2)
_PIDFD_GET_INFO = 0xC040FF0B  # Linux 6.13, linux/pidfd.h: struct pidfd_info, 64 bytes
_PIDFD_INFO_EXIT = 1 << 3  # Linux 6.15
_CAP_BPF = 39


class Process:
    """One process, from right after its spawn until it is reaped. Owns the pidfd."""

    __slots__ = ("pid", "pidfd", "started", "status")

    def __init__(self, pid: int, *, pidfd: int | None = None) -> None:
        """Take over a child just spawned, or any process by a `pidfd` that was opened before.

        A child that cannot be watched is killed and reaped here, because nobody else would.
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

    def is_child(self) -> bool:
        """Tell whether it is a child of ours that is not reaped yet, and no other manager's."""
        try:
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def poll(self) -> int | None:
        """Reap it if it is dead; return its status as Popen.returncode does, None while it lives.

        When the pidfd is readable it is dead but not reaped: the last moment at which every kernel
        can still signal the rest of its group.
        """
        if self.status is None:
            try:
                result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:  # adopted from another manager
                self.status = self._status_of_a_stranger()
            else:
                self.status = _returncode(result) if result else None
        return self.status

    def peek(self) -> int | None:
        """Return the status of a dead process as poll() does, but do not reap it yet."""
        if self.status is not None:
            return self.status
        try:
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            result = os.waitid(os.P_PIDFD, self.pidfd, how)
        except ChildProcessError:  # adopted from another manager
            return self._status_of_a_stranger()
        return _returncode(result) if result else None

    def signal(self, number: int) -> bool:
        """Send it a signal; False if it is dead, or (logged) if that is not permitted."""
        return self._send(number)

    def signal_group(self, number: int) -> bool:
        """Send a signal to its process group, and never to a later group of the same number."""
        try:
            return self._send(number, _PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        # An older kernel. Not reaped yet, so nobody else can have its number.
        if self.status is not None or not self._send(0):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
            return True
        return False

    def close(self) -> None:
        """Close the pidfd; the process itself goes on as it likes."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _send(self, number: int, flags: int = 0) -> bool:
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

    def _status_of_a_stranger(self) -> int | None:
        watch = select.poll()
        watch.register(self.pidfd, select.POLLIN)
        if not watch.poll(0):
            return None
        # Before it is reaped /proc knows the status, afterwards its pidfd does.
        zombie = _zombie_status(self.pid)
        info = bytearray(struct.pack("@Q56x", _PIDFD_INFO_EXIT))
        try:
            fcntl.ioctl(self.pidfd, _PIDFD_GET_INFO, info)
        except OSError:  # a kernel that cannot tell
            return UNKNOWN_STATUS if zombie is None else zombie
        if struct.unpack_from("@Q", info)[0] & _PIDFD_INFO_EXIT:
            return os.waitstatus_to_exitcode(struct.unpack_from("@i", info, 60)[0])
        return UNKNOWN_STATUS if zombie is None else zombie


def open_again(pid: int, started: int) -> int | None:
    """Return a pidfd, the caller's, of the process that began at `started`; None if it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, FileNotFoundError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # the number is a thread's now
            raise
        return None
    # Compared only now: had its pid been given away before, or since, this were another's start.
    if start_time(pid) == started:
        return pidfd
    os.close(pidfd)
    return None


def send(pid: int, started: int, number: int) -> None:
    """Send a signal to the process that began at `started`, and never to another of that pid."""
    pidfd = None
    try:
        if (pidfd := open_again(pid, started)) is not None:
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

    It is looked at once more when its pidfd is open: its pid may be another's since it was found.
    """
    started = start_time(pid)
    if not started or sockets_of(pid).isdisjoint(inodes):
        return False
    send(pid, started, signal.SIGKILL)
    return True


def pid_of(pidfd: int) -> int:
    """Return the process that a pidfd means; 0 if it is dead and reaped, or this is no pidfd."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines():
        if line.startswith("Pid:"):
            return max(0, int(line.split()[1]))
    return 0


def take_in(pidfd: int, group: int) -> Process | None:
    """Own a child of ours that a process of this group made; it leaves that when it is told to.

    None, and `pidfd` is closed, if it is no such child or was reaped: who passed it may lie, and
    what is not our own we must never signal.
    """
    pid = pid_of(pidfd)
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if pid and os.getpgid(pid) == group:
            return Process(pid, pidfd=pidfd)
    except OSError:  # another's child, one that is gone, or no pidfd at all
        pass
    os.close(pidfd)
    return None


def _returncode(result: os.waitid_result) -> int:
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _zombie_status(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # reaped
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # from field 3 of proc_pid_stat(5) on
    return os.waitstatus_to_exitcode(int(fields[49])) if fields[0] == b"Z" else None


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
    """Undo what a parent may have left ignored or blocked, and block these; call it at start.

    With SIGCHLD ignored the kernel reaps our children itself (wait(2)): no status, no pidfd.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def become_subreaper() -> None:
    """Have orphaned descendants become our children, so that they can be seen and reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def withhold_bpf() -> None:
    """Keep CAP_BPF from all that we start, if a unit gave it to us with AmbientCapabilities=.

    For this thread, and those that it starts; we have it still. See capabilities(7).
    """
    _prctl(_PR_CAP_AMBIENT, _LOWER, _CAP_BPF)


def hand_on_bpf() -> None:
    """Undo withhold_bpf(), so that the program that we become by execve(2) has it, too."""
    with contextlib.suppress(PermissionError):  # we have none to hand on
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
    # waitid(P_ALL) would show one dead worker, not ours to reap, over and over: so one by one.
    for pid in children(os.getpid()):
        if pid not in known:
            with contextlib.suppress(ChildProcessError):
                result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
                if result:
                    reaped.append((pid, _returncode(result)))
    return reaped


# --- What belongs to a worker --------------------------------------------------------------------


def strays(inodes: Collection[int]) -> frozenset[int]:
    """Return the pids of our descendants that have one of these sockets open.

    Those of other users are seen by root only. Reads every descriptor of each: for after an exit.
    """
    family = descendants(os.getpid())
    return frozenset(pid for pid in family if not sockets_of(pid).isdisjoint(inodes))


# --- Priority ------------------------------------------------------------------------------------


def can_restore_priority() -> bool:
    """Tell whether a lowered priority could be raised again; without that, never lower any.

    Tried on a thread of our own, since capabilities do not tell the truth in a user namespace
    (setpriority(2): CAP_SYS_NICE in the first one, or RLIMIT_NICE). A manager that is root may
    start workers of other users, for which RLIMIT_NICE is not enough.
    """
    answer: list[bool] = []

    def try_it() -> None:
        thread = threading.get_native_id()
        normal = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, LOW_PRIORITY)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, normal)
            answer.append(True)

    probe = threading.Thread(target=try_it, name="priority")
    probe.start()
    probe.join()
    return bool(answer) and (os.geteuid() != 0 or has_capability(CAP_SYS_NICE))


def lower_priority(pid: int) -> None:
    """Lower the CPU priority of a worker just spawned; what it starts inherits that."""
    for what in (os.PRIO_PROCESS, os.PRIO_PGRP):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpriority(what, pid, LOW_PRIORITY)


def restore_priority(pid: int) -> None:
    """Give a worker, its group and all that descends from it the manager's own priority again."""
    normal = os.getpriority(os.PRIO_PROCESS, 0)
    groups = {pid}
    _set_group_priority(pid, normal)
    for member in descendants(pid):
        with contextlib.suppress(OSError):
            groups.add(os.getpgid(member))
    # Its own group once more: for what was being forked the first time.
    for group in groups - {os.getpgrp()}:
        _set_group_priority(group, normal)


def waited_for_cpu(pid: int) -> float:
    """Return for how many seconds the first thread of a process was runnable but did not run.

    0 where the kernel does not count it (CONFIG_SCHED_INFO) or the process is gone.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _set_group_priority(group: int, priority: int) -> None:
    try:
        os.setpriority(os.PRIO_PGRP, group, priority)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        log.error("cannot restore priority", group=group, error=error.strerror)
