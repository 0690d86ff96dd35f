"""Take sockets back from workers of a dead manager, if nothing else holds them: pidfd_getfd(2).

Copies descriptors; the workers keep theirs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Collection
from pathlib import Path

from sockmgr.errors import ListenError
from sockmgr.kernel.procfs import open_sockets

_PIDFD_GETFD = 438  # the same number on all architectures
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_NOTHING_STARTED = "the old workers serve on; nothing was started"
_END_THEM = "or end the old workers first"


def take_back(pid: int, pidfd: int, inodes: Collection[int]) -> dict[int, int]:
    """Return duplicates of the sockets `inodes` that a process has open, by inode.

    `pidfd` is a pidfd of `pid`. The caller owns the duplicates. Raises ListenError if the kernel
    does not permit it.
    """
    found: dict[int, int] = {}
    try:
        for number, inode in open_sockets(pid):
            if inode in inodes and inode not in found:
                found |= _get(pidfd, number, inode)
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return found
    except OSError as error:
        for fd in found.values():
            os.close(fd)
        raise _explain(pid, error) from error
    return found


def _get(pidfd: int, number: int, inode: int) -> dict[int, int]:
    """Duplicate what the process has open as `number`, unless that is another socket by now."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(_PIDFD_GETFD, pidfd, number, 0)  # the duplicate is close-on-exec
    if fd < 0:
        code = ctypes.get_errno()
        if code == errno.EBADF:  # closed meanwhile
            return {}
        raise OSError(code, os.strerror(code))
    if os.fstat(fd).st_ino == inode:
        return {inode: fd}
    os.close(fd)
    return {}


# --- Errors --------------------------------------------------------------------------------------


def _explain(pid: int, error: OSError) -> ListenError:
    code = error.errno or 0
    scope = _SCOPE.read_text().strip() if _SCOPE.exists() else "0"
    reason, do = hindrance(code, uid=_uid(pid), scope=scope)
    return ListenError(
        f"process {pid} of a manager that died holds our sockets, and we may not take them back: "
        f"{reason}",
        means=_NOTHING_STARTED,
        do=f"{do}; it takes this way only if the keeper process was killed as well",
    )


def hindrance(code: int, *, uid: int, scope: str) -> tuple[str, str]:
    """Return why ptrace(2), or a call with the same rules, fails with errno `code`, and the remedy.

    `uid` is the user of the other process, `scope` the value of kernel.yama.ptrace_scope.
    """
    if code in (errno.EMFILE, errno.ENFILE):
        return "too many open files", "raise LimitNOFILE= or ulimit -n of the manager"
    if code == errno.ENOSYS:
        return (
            "pidfd_getfd(2) is missing, or a seccomp filter hides it",
            f"allow it in the seccomp filter of the container, {_END_THEM}",
        )
    if code not in (errno.EPERM, errno.EACCES):
        return os.strerror(code), f"start again, {_END_THEM}"
    if os.geteuid() not in (0, uid):
        return (
            f"it belongs to user {uid}, and we are {os.geteuid()} (ptrace(2))",
            f"start the manager as that user, as root or with CAP_SYS_PTRACE, {_END_THEM}",
        )
    if scope == "3":
        return "kernel.yama.ptrace_scope is 3, which forbids it to everybody", _END_THEM[3:]
    if scope != "0":
        return (
            f"kernel.yama.ptrace_scope is {scope}",
            f"start the manager with CAP_SYS_PTRACE, {_END_THEM}",
        )
    return (
        "ptrace(2) is forbidden: the process is protected (it has changed its user, or has "
        "capabilities that we have not), or a seccomp filter forbids pidfd_getfd(2)",
        f"start the manager as root or with CAP_SYS_PTRACE, allow the call, {_END_THEM}",
    )


def _uid(pid: int) -> int:
    """Return the real user of a process; -1 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return -1
    found = re.search(rb"^Uid:\s*(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else -1
