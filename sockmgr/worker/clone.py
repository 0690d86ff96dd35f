"""Copies this process so that the copy is a child of our parent, which can then wait for it.

There are two ways, and both need a process with a single thread. Keeps no state.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from sockmgr.worker.wire import receive

_CLONE3 = 435  # the same number on every architecture
_CLONE_PIDFD, _CLONE_PARENT = 0x1000, 0x8000  # clone(2), linux/sched.h
_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x200000, 0x1000000
_PR_GET_TID_ADDRESS = 40
# ENOSYS: a seccomp filter, as containers have, that does not know clone3, or a kernel before 5.3.
# EPERM: another filter. EINVAL: we are the first process of a container.
_REFUSALS = (errno.ENOSYS, errno.EPERM, errno.EINVAL)

Made = tuple[int, int]  # pid and pidfd, which the caller owns; (0, -1) in the copy


class RefusedError(Exception):
    """The kernel, or a seccomp filter, does not allow clone3(2)."""


def clone() -> Made:
    """Copy by clone3(2); raise RefusedError, or OSError if there is no room for a process."""
    libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL holds the GIL, as os.fork() does
    pidfd = ctypes.c_int(-1)
    flags, tid = _CLONE_PARENT | _CLONE_PIDFD, _tid_address(libc)
    if tid:  # as in glibc's fork(): glibc compares the id that it keeps there with owners of locks
        flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls. With CLONE_PARENT
    # exit_signal must be 0, and the copy gets our own.
    arguments = struct.pack("@8Q", flags, ctypes.addressof(pidfd), tid, 0, 0, 0, 0, 0)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = libc.syscall(_CLONE3, arguments, len(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid > 0:
        return pid, pidfd.value
    if number in _REFUSALS:
        raise RefusedError(f"clone3(2): {os.strerror(number)}")
    raise OSError(number, os.strerror(number))


def fork_twice() -> Made:
    """Copy by a child that forks and ends at once, so that our parent adopts the orphaned copy.

    Our parent must be a subreaper, prctl(2), or the first process.
    """
    ours, its = socket.socketpair()
    with ours, its:
        between = os.fork()
        if between == 0:
            return _fork_and_end(its)
        its.close()
        data, pidfds = receive(ours, 32, 1)
        os.waitpid(between, 0)  # once the child between has ended, the copy has its new parent
    if data.isdigit() and pidfds:
        return int(data), pidfds[0]
    number = int(data or str(-errno.ECHILD))
    raise OSError(-number, os.strerror(-number))


def _fork_and_end(channel: socket.socket) -> Made:
    """Make the copy, and end this process; return only in the copy."""
    try:
        pid = os.fork()
        if pid == 0:
            return 0, -1
        # We open the pidfd: only we, the parent, can reap the copy, so the pid is still its own.
        socket.send_fds(channel, [str(pid).encode()], [os.pidfd_open(pid)])
    except OSError as error:
        channel.send(str(-(error.errno or errno.EIO)).encode())
    os._exit(0)


def _tid_address(libc: ctypes.PyDLL) -> int:
    """Return where our C library keeps the id of this thread; 0 if the kernel cannot say."""
    address = ctypes.c_ulong()
    zero = ctypes.c_ulong(0)
    told = libc.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), zero, zero, zero)
    return address.value if told == 0 else 0
