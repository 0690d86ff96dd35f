"""Lower the priority of a process while it boots beside others that serve, and restore it.

A nice value counts only among the processes of one session where the kernel groups processes by
session (sched(7), "The autogroup feature": most distributions, outside a cgroup with a processor
controller). Each worker is a session of its own, so the session's own nice value is lowered, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import NamedTuple

from sockmgr.kernel.capabilities import CAP_SYS_NICE, has_capability
from sockmgr.kernel.procfs import descendants
from sockmgr.log import Log

LOW = 19

log = Log("sockmgr")


class Demand(NamedTuple):
    """For how many seconds a process ran, and how long it was runnable but did not run."""

    ran: float
    waited: float


def can_restore() -> bool:
    """Return whether a lowered priority could be raised again; without that, never lower any.

    Tried on a thread of our own, since capabilities do not count in a user namespace
    (setpriority(2): CAP_SYS_NICE in the first one, or RLIMIT_NICE). A manager that is root may
    start workers of other users, for which RLIMIT_NICE is not enough.
    """
    answer: list[bool] = []

    def try_it() -> None:
        thread = threading.get_native_id()
        normal = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, LOW)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, normal)
            answer.append(True)

    probe = threading.Thread(target=try_it, name="priority")
    probe.start()
    probe.join()
    return bool(answer) and (os.geteuid() != 0 or has_capability(CAP_SYS_NICE))


def lower(pid: int) -> None:
    """Lower the priority of a process just spawned; what the process starts inherits that."""
    for what in (os.PRIO_PROCESS, os.PRIO_PGRP):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpriority(what, pid, LOW)


def restore(pid: int) -> None:
    """Give a process, its group and all its descendants the manager's own priority again."""
    normal = os.getpriority(os.PRIO_PROCESS, 0)
    groups = {pid}
    _set_group(pid, normal)
    for member in descendants(pid):
        with contextlib.suppress(OSError):
            groups.add(os.getpgid(member))
    # Its own group once more, for children that were being forked the first time.
    for group in groups - {os.getpgrp()}:
        _set_group(group, normal)


def is_low(pid: int) -> bool:
    """Return whether the priority of a process is that of lower(), and not the manager's own."""
    with contextlib.suppress(ProcessLookupError):
        return os.getpriority(os.PRIO_PROCESS, pid) == LOW != os.getpriority(os.PRIO_PROCESS, 0)
    return False


def lower_session(pid: int) -> bool:
    """Lower the session that a process leads, beside all other sessions.

    False if nothing was changed: the kernel does not group by session, the process does not lead a
    session (yet), or the kernel wants to be asked later (see restore_session).
    """
    try:
        return os.getsid(pid) == pid and _set_session(pid, LOW)
    except OSError:
        return False


def restore_session(pid: int) -> bool:
    """Undo lower_session(); False if the kernel wants to be asked again later.

    Without CAP_SYS_ADMIN it allows ten changes a second on the whole machine
    (proc_sched_autogroup_set_nice() in kernel/sched/autogroup.c).
    """
    try:
        return _set_session(pid, 0)
    except OSError:
        return True  # the process is gone


def demand(pid: int) -> Demand:
    """Return how long a process and its descendants ran, and how long they had to wait to run.

    Counts the first thread of each process. Descendants count, since a launcher only waits for its
    server. Zeros if the kernel does not count it (CONFIG_SCHED_INFO) or the process is gone.
    """
    ran = waited = 0
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError, ValueError):
            one, other, *_ = Path(f"/proc/{each}/schedstat").read_text().split()
            ran, waited = ran + int(one), waited + int(other)
    return Demand(ran / 1e9, waited / 1e9)


def _set_session(pid: int, nice: int) -> bool:
    """Write the nice value of a session; False if the kernel says EAGAIN. Raises OSError."""
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        return False
    return True


def _set_group(group: int, priority: int) -> None:
    try:
        os.setpriority(os.PRIO_PGRP, group, priority)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        log.error("cannot restore priority", group=group, error=error.strerror)
