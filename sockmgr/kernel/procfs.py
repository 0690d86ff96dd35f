"""See processes in /proc: which exist, which descend from which, which sockets each has open.

Remembers nothing. A process that we may not look into seems to have no sockets and no children.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
MOST_ANCESTORS = 64  # a process below more is taken to belong to no worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A living process. `started` is in clock ticks since boot: pid and start are unique."""

    pid: int
    parent: int
    group: int
    session: int
    started: int


def member(pid: int) -> Member | None:
    """Return a process as it is now; None if there is none, or only a zombie."""
    fields = _stat(pid)
    # Z and X alone do not mean death: the first thread may end before the others.
    if not fields or (fields[0] in b"ZX" and int(fields[17]) <= 1):
        return None
    return Member(
        pid=pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started=int(fields[19]),
    )


def everybody() -> Iterator[Member]:
    """Yield all living processes that we may see."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if name.isdecimal() and (found := member(int(name))):
            yield found


def start_time(pid: int) -> int:
    """Return when a process began, in clock ticks since boot (proc_pid_stat(5)); 0 if it is gone.

    A pid is reused, but never with the same start.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def is_stopped(pid: int) -> bool:
    """Return whether a process was stopped, by SIGSTOP or by a debugger."""
    return _stat(pid)[:1] in ([b"T"], [b"t"])


def exit_status(pid: int) -> int | None:
    """Return the status of a dead process as Popen.returncode has it, None if it is not a zombie.

    A zombie is dead and not reaped yet. Field 52 of proc_pid_stat(5); it takes ptrace(2) rights.
    """
    fields = _stat(pid)
    dead = bool(fields) and fields[0] == b"Z"
    return os.waitstatus_to_exitcode(int(fields[49])) if dead else None


def argument_area(pid: int) -> bytes | None:
    """Return where the arguments of a process are in its memory, None if that cannot be seen.

    Field 48 of proc_pid_stat(5): a fork has that of its parent, each execve(2) a random one.
    """
    fields = _stat(pid)
    return fields[45] if len(fields) > 45 else None


def resident(pid: int) -> int:
    """Return the bytes of a process that are in memory (proc_pid_statm(5)); 0 if we see none."""
    try:
        pages = read(f"/proc/{pid}/statm").split()
    except OSError:  # gone, or hidden
        return 0
    return int(pages[1]) * _PAGE


def cpu_time(pid: int) -> float:
    """Return the seconds of processors that a process has used, with its dead children.

    Fields 14 to 17 of proc_pid_stat(5): those that it has not waited for are not in them.
    """
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


def user_of(pid: int) -> int:
    """Return the uid of a process; 0 if it hides from its own user (prctl(2)), -1 if it is gone."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


# --- The tree ------------------------------------------------------------------------------------


def children(pid: int, of: Iterable[str] | None = None) -> list[int]:
    """Return the pids of the children of a process, with those that are dead and not reaped.

    `of` are its threads, if the caller knows them already.
    """
    found: list[int] = []
    for thread in threads(pid) if of is None else of:
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/task/{thread}/children"
            found += map(int, read(path).split())
    return found


def tree(pid: int) -> Iterator[int]:
    """Yield `pid` and the pids of all its descendants, parents first.

    Children are listed when they are needed, so that those forked meanwhile are seen.
    """
    waiting = [pid]
    for each in waiting:
        yield each
        waiting += children(each)


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of `pid`, parents first."""
    return list(tree(pid))[1:]


def ancestors(pid: int) -> Iterator[int]:
    """Yield the parent of a process, its parent, and so on, up to MOST_ANCESTORS."""
    for _ in range(MOST_ANCESTORS):
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
        if pid <= 1:
            return
        yield pid


def owner_of(pid: int, among: Container[int]) -> int:
    """Return which of `among` a process is, shares the session of, or descends from; 0 if none.

    A session counts, because only descendants of its leader are in it (setsid(2)). A process group
    does not: any process of the session may join it.
    """
    with contextlib.suppress(ProcessLookupError):
        if pid in among or (session := os.getsid(pid)) not in among:
            return next((each for each in (pid, *ancestors(pid)) if each in among), 0)
        return session
    return 0


def threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - a look is made every few ms
    except OSError:  # gone, or hidden
        return []


# --- What is open --------------------------------------------------------------------------------


def may_see_descriptors(pid: int) -> bool:
    """Return whether a living process lets us see what it has open."""
    return not threads(pid) or os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK, effective_ids=True)


def open_sockets(pid: int) -> Iterator[tuple[int, int]]:
    """Yield the number and the inode of each socket that a process has open; raise OSError."""
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):  # noqa: PTH208 - names are all that is wanted
        try:
            link = os.readlink(f"{directory}/{name}")  # noqa: PTH115
        except FileNotFoundError:  # closed meanwhile
            continue
        if inode := socket_inode(link):
            yield int(name), inode


def socket_inode(link: str) -> int:
    """Return the inode of the socket that a link of /proc/PID/fd leads to; 0 for anything else."""
    return int(link[8:-1]) if link.startswith("socket:[") else 0


def sockets_of(pid: int, *, above: int = -1) -> frozenset[int]:
    """Return the inodes of the sockets that a process has open as numbers `above` this one."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # gone, or not permitted
        found.update(inode for number, inode in open_sockets(pid) if number > above)
    return frozenset(found)


def read(path: str) -> bytes:
    """Return the content of a file of /proc, with fewer calls than Path.read_bytes()."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 1 << 16)
        if len(data) < 1024:  # /proc returns a longer file page by page
            return data
        chunks = [data]
        while chunks[-1]:
            chunks.append(os.read(fd, 1 << 16))
        return b"".join(chunks)
    finally:
        os.close(fd)


def _stat(pid: int) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) from the third on; [] for a process that is gone.

    The second one, the name, may contain anything, so the fields begin at the last ")".
    """
    try:
        stat = read(f"/proc/{pid}/stat")
    except OSError:  # gone
        return []
    return stat[stat.rindex(b")") + 2 :].split()
