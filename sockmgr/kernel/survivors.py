"""Take sockets back from processes that still hold them: pidfd_getfd(2), for when nobody else does.

Copies descriptors, and leaves the processes as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from collections.abc import Collection
from pathlib import Path

from sockmgr.core.errors import ListenError

_PIDFD_GETFD = 438  # the same number everywhere: asm-generic/unistd.h and later tables
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


def take_back(pid: int, pidfd: int, inodes: Collection[int]) -> dict[int, int]:
    """Return those of the sockets `inodes` that this process has open: inode -> our own duplicate.

    `pidfd` is of `pid`. Raises ListenError if we may not; the caller owns what it gets.
    """
    found: dict[int, int] = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names are all that is wanted
            with contextlib.suppress(FileNotFoundError):
                link = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
                inode = int(link[8:-1]) if link.startswith("socket:[") else 0
                if inode in inodes and inode not in found:
                    found[inode] = _get(pidfd, int(name))
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return found
    except PermissionError as error:
        for fd in found.values():
            os.close(fd)
        raise _forbidden(pid) from error
    return found


def _get(pidfd: int, number: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(_PIDFD_GETFD, pidfd, number, 0)  # close-on-exec, as the call has it
    if fd < 0:
        code = ctypes.get_errno()
        if code == errno.EBADF:  # closed meanwhile
            raise FileNotFoundError(code, os.strerror(code))
        raise OSError(code, os.strerror(code))
    return fd


def _forbidden(pid: int) -> ListenError:
    scope = _SCOPE.read_text().strip() if _SCOPE.exists() else "unknown"
    return ListenError(
        f"worker {pid} of a manager that died holds our sockets, and we may not take them back: "
        f"ptrace(2) rules forbid it (kernel.yama.ptrace_scope is {scope}, Linux "
        f"{platform.release()})",
        means="the old workers serve on; nothing was started",
        do="start the manager as root or with CAP_SYS_PTRACE, or end the old workers first; it "
        "takes this way only if the keeper process was killed as well",
    )
