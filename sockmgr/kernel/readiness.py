"""See in /proc whether a process waits for connections on a socket. Remembers nothing.

For each thread of the process tree it looks at the system call in which the thread sleeps, and, if
that call waits for descriptors, at those. A socket that is merely open, or registered with an epoll
on which no thread waits yet, proves nothing: the program may still be loading.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from sockmgr.kernel.procfs import children, read, socket_inode, sockets_of, threads, tree
from sockmgr.terminal.format import count

# Numbers of system calls: asm/unistd_64.h of x86, asm-generic/unistd.h.
_NUMBERS = {
    "x86_64": {
        43: "accept", 288: "accept4", 45: "recvfrom", 47: "recvmsg", 299: "recvmmsg",
        7: "poll", 271: "ppoll", 23: "select", 270: "pselect6",
        232: "epoll_wait", 281: "epoll_pwait", 441: "epoll_pwait2", 426: "io_uring_enter",
        # A poll(2) goes on as this call after SIGSTOP and SIGCONT, with the same arguments.
        219: "restart_syscall",
        # The rest is only for describe(), to say what a process does instead.
        0: "read", 1: "write", 2: "open", 16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv",
        20: "writev", 34: "pause", 35: "nanosleep", 42: "connect", 44: "sendto", 46: "sendmsg",
        61: "wait4", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 128: "rt_sigtimedwait",
        130: "rt_sigsuspend", 202: "futex", 230: "clock_nanosleep", 247: "waitid", 257: "openat",
        275: "splice", 449: "futex_waitv",
    },
    "aarch64": {
        202: "accept", 242: "accept4", 207: "recvfrom", 212: "recvmsg", 243: "recvmmsg",
        73: "ppoll", 72: "pselect6",
        22: "epoll_pwait", 441: "epoll_pwait2", 426: "io_uring_enter", 128: "restart_syscall",
        25: "fcntl", 29: "ioctl", 32: "flock", 56: "openat", 63: "read", 64: "write", 65: "readv",
        66: "writev", 67: "pread64", 68: "pwrite64", 76: "splice", 82: "fsync", 83: "fdatasync",
        95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep", 133: "rt_sigsuspend",
        137: "rt_sigtimedwait", 203: "connect", 206: "sendto", 211: "sendmsg", 260: "wait4",
        449: "futex_waitv",
    },
}  # fmt: skip
Memory = Callable[[int, int, int], bytes]  # reads from a pid, at an address, so many bytes

_CALLS = _NUMBERS.get(platform.machine(), {})

_POLLFD = struct.Struct("@ihh")
_POLLIN = 0x0001 | 0x0040  # POLLIN or POLLRDNORM; EPOLLIN and EPOLLRDNORM are the same bits
_MAX_DESCRIPTORS = 1 << 14
_MAX_NESTED = 5  # EP_MAX_NESTS is 4, epoll_ctl(2)
_TFD = re.compile(rb"^tfd:\s*(\d+) events:\s*([0-9a-f]+) .*?\bino:\s*([0-9a-f]+)", re.MULTILINE)
_ACCEPT_PENDING = re.compile(rb"^\s*op=13,", re.MULTILINE)  # IORING_OP_ACCEPT


def read_directly(pid: int, address: int, size: int) -> bytes:
    """Return `size` bytes of a process's memory; raise OSError.

    May block forever: the process may have mapped something there that does not answer (FUSE).
    """
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def accepting(pid: int, inodes: frozenset[int], memory: Memory = read_directly) -> frozenset[int]:
    """Return those of the sockets on which the process or a descendant waits at this moment."""
    look, waiting = _Look(inodes, memory), [pid]
    for member in waiting:
        found = threads(member)
        look.at(member, found)
        if look.found >= inodes:
            break
        waiting += children(member, found)
    return frozenset(look.found & inodes)


def is_hidden(pid: int) -> bool:
    """Tell whether we may not see in which call a process sleeps: proc(5), ptrace(2)."""
    try:
        read(f"/proc/{pid}/task/{pid}/syscall")
    except PermissionError:
        return True
    except OSError:  # gone
        return False
    return False


def describe(pid: int, inodes: frozenset[int], memory: Memory = read_directly) -> str:
    """Say in a sentence or two what a worker does that did not become ready."""
    look = _Look(inodes, memory)
    members = list(tree(pid))
    for member in members:
        look.at(member, threads(member))
    if look.hidden == len(members):
        return f"process {pid} cannot be seen in /proc: it has ended, or /proc is mounted hidepid="
    seen = len(members) - look.hidden
    text = [
        f"looked at {seen} process{'' if seen == 1 else 'es'} with "
        f"{count(look.threads, 'thread')}: {_activity(look)}"
    ]
    if look.denied:
        text.append(
            "not permitted to see what it waits in (that takes its own user, or CAP_SYS_PTRACE, "
            "and kernel.yama.ptrace_scope below 2), so only an epoll that holds the socket counts"
        )
    elif not _CALLS:
        text.append(f"the system calls of {platform.machine()} are not known, so only epoll counts")
    text.append(_sockets_in_words(members, inodes, inodes - look.found))
    return "; ".join(text)


def _link(pid: int, fd: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")  # noqa: PTH115
    except OSError:  # closed, or not permitted
        return ""


def _inode(pid: int, fd: int) -> int:
    return socket_inode(_link(pid, fd))


# --- One look ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Look:
    """What was seen so far of the processes of one worker."""

    inodes: frozenset[int]
    memory: Memory
    found: set[int] = field(default_factory=set)
    activity: Counter[str] = field(default_factory=Counter)
    threads: int = 0
    hidden: int = 0
    denied: bool = False

    def at(self, pid: int, found: Collection[str]) -> None:
        """Look at one process, of which these threads were found."""
        self.threads += len(found)
        self.hidden += not found
        for thread in found:
            try:
                words = read(f"/proc/{pid}/task/{thread}/syscall").split()
            except PermissionError:  # Yama scope 2 and 3, or another user
                self.denied = True
            except OSError:  # gone
                continue
            else:
                if _CALLS:
                    self._at_call(pid, words)
                    continue
            self.found.update(_registered(pid, self.inodes))
            return

    def _at_call(self, pid: int, words: list[bytes]) -> None:
        # "running", "-1 SP PC" or "NUMBER ARGUMENT{6} SP PC": proc_pid_syscall(5)
        if len(words) < 9:
            self.activity["running"] += 1
            return
        name = _CALLS.get(int(words[0]), f"system call {int(words[0])}")
        self.activity[name] += 1
        with contextlib.suppress(OSError):  # the call has returned meanwhile
            arguments = [int(word, 16) for word in words[1:7]]
            self.found.update(_waited_on(pid, name, arguments, self))


def _waited_on(pid: int, name: str, args: list[int], look: _Look) -> Iterable[int]:
    match name:
        case "accept" | "accept4" | "recvfrom" | "recvmsg" | "recvmmsg":
            return [_inode(pid, args[0])]
        case "poll" | "ppoll" | "restart_syscall":
            return (_inode(pid, fd) for fd in _poll_set(look.memory, pid, *args[:2]))
        case "select" | "pselect6":
            return (_inode(pid, fd) for fd in _select_set(look.memory, pid, *args[:2]))
        case "epoll_wait" | "epoll_pwait" | "epoll_pwait2":
            return _epoll(pid, args[0], look.inodes)
        case "io_uring_enter":
            return _any_io_uring(pid, look.inodes)
        case _:
            return ()


def _poll_set(memory: Memory, pid: int, address: int, count: int) -> Iterator[int]:
    if 0 < count <= _MAX_DESCRIPTORS:
        data = memory(pid, address, count * _POLLFD.size)
        whole = data[: len(data) - len(data) % _POLLFD.size]
        for fd, events, _ in _POLLFD.iter_unpack(whole):
            if fd >= 0 and events & _POLLIN:
                yield fd


def _select_set(memory: Memory, pid: int, count: int, address: int) -> Iterator[int]:
    if 0 < count <= _MAX_DESCRIPTORS and address:
        # An fd_set is an array of long; on little-endian machines bit n is bit n%8 of byte n//8.
        bits = int.from_bytes(memory(pid, address, (count + 63) // 64 * 8), "little")
        yield from (fd for fd in range(count) if bits >> fd & 1)


def _epoll(pid: int, epoll: int, inodes: frozenset[int], depth: int = 0) -> Iterator[int]:
    text = read(f"/proc/{pid}/fdinfo/{epoll}")
    entries = [
        (int(tfd), int(inode, 16))
        for tfd, events, inode in _TFD.findall(text)
        if int(events, 16) & _POLLIN
    ]
    yield from (inode for _, inode in entries if inode in inodes)
    for tfd, inode in entries:
        if inode in inodes or depth == _MAX_NESTED:
            continue
        match _link(pid, tfd):
            case "anon_inode:[eventpoll]":
                yield from _epoll(pid, tfd, inodes, depth + 1)
            case "anon_inode:[io_uring]":
                yield from _io_uring(pid, [tfd], inodes)


def _io_uring(pid: int, rings: Iterable[int | str], inodes: frozenset[int]) -> frozenset[int]:
    """Return the sockets that the process has open, if as many accepts are pending on its rings.

    The kernel does not show which socket a pending accept is for.
    """
    pending = sum(len(_ACCEPT_PENDING.findall(read(f"/proc/{pid}/fdinfo/{r}"))) for r in rings)
    if not pending:
        return frozenset()
    held = sockets_of(pid) & inodes
    return held if pending >= len(held) else frozenset()


def _any_io_uring(pid: int, inodes: frozenset[int]) -> frozenset[int]:
    # All rings, since the argument of the call may be an index (IORING_ENTER_REGISTERED_RING).
    rings = [fd for fd in _descriptors(pid) if _link(pid, fd) == "anon_inode:[io_uring]"]
    return _io_uring(pid, rings, inodes)


# --- All descriptors of a process: slow, so only where the call does not name the descriptor -----


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except OSError:
        return []


def _registered(pid: int, inodes: frozenset[int]) -> set[int]:
    found: set[int] = set()
    for fd in _descriptors(pid):
        if _link(pid, fd) == "anon_inode:[eventpoll]":
            with contextlib.suppress(OSError):
                found.update(_epoll(pid, int(fd), inodes))
    return found


# --- Words ---------------------------------------------------------------------------------------


def _activity(look: _Look) -> str:
    parts = [f"{times} in {name}" for name, times in look.activity.most_common() if name]
    return ", ".join(parts).replace("in running", "running") or "nothing is known of them"


def _sockets_in_words(members: list[int], inodes: frozenset[int], missing: frozenset[int]) -> str:
    if not missing:
        return "every listener is waited on now"
    what = f"{len(missing)} of {count(len(inodes), 'listener')} not waited on"
    held = missing & frozenset[int]().union(*map(sockets_of, members))
    if held == missing:
        return f"{what}, though held open: still loading, or waiting for something else first"
    return (
        f"{what}, {len(missing - held)} not even held by any process: is the command told to use "
        "the descriptor it is given?"
    )
