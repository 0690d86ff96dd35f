"""What /proc tells of processes: who is there, who descends from whom, which sockets each has.

Looks only, and remembers nothing. Whoever cannot be looked into has nothing, and no children.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_ANCESTORS = 64  # of a process that is asked for; whoever is deeper belongs to nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A living process. `started` is in clock ticks since boot; with it a pid means one process."""

    pid: int
    parent: int
    group: int
    session: int
    started: int


def member(pid: int) -> Member | None:
    """Return a process as it is now; None if there is none, or only its remains."""
    fields = _stat(pid)
    # The first thread may end before the others.
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
    """Return when a process began, in clock ticks since boot; 0 if there is none.

    With it a pid means one process only: proc_pid_stat(5), field 22.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def user_of(pid: int) -> int:
    """Return whose process it is; root's if it is hidden from its own user, -1 if it is gone."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


# --- The tree ------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Return the pids of the children of a process, of those it has not waited for as well."""
    found: list[int] = []
    for thread in threads(pid):
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/task/{thread}/children"
            found += map(int, read(path).split())
    return found


def tree(pid: int) -> Iterator[int]:
    """Yield `pid` and the pids of all its descendants, parents first; each is looked for late."""
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

    Only who was forked there is in a session, setsid(2); a process group anybody may join.
    """
    with contextlib.suppress(ProcessLookupError):
        if pid in among or (session := os.getsid(pid)) not in among:
            return next((each for each in (pid, *ancestors(pid)) if each in among), 0)
        return session
    return 0


def threads(pid: int) -> list[str]:
    """Return the ids of the threads of a process."""
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - a look is made every few ms
    except OSError:  # gone, or hidden
        return []


# --- What is open --------------------------------------------------------------------------------


def may_see_descriptors(pid: int) -> bool:
    """Tell whether a living process lets us see what it has open."""
    return not threads(pid) or os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK, effective_ids=True)


def sockets_of(pid: int, *, above: int = -1) -> frozenset[int]:
    """Return the inodes of the sockets that a process has open as numbers `above` this one."""
    found: set[int] = set()
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):  # gone, or not permitted
        for fd in os.listdir(directory):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                link = os.readlink(f"{directory}/{fd}")  # noqa: PTH115
                if link.startswith("socket:[") and int(fd) > above:
                    found.add(int(link[8:-1]))
    return frozenset(found)


def read(path: str) -> bytes:
    """Return what is in a file of /proc, in fewer calls than Path.read_bytes()."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 1 << 16)
        if len(data) < 1024:  # a file of /proc that is longer comes in pages
            return data
        chunks = [data]
        while chunks[-1]:
            chunks.append(os.read(fd, 1 << 16))
        return b"".join(chunks)
    finally:
        os.close(fd)


def _stat(pid: int) -> list[bytes]:
    """Return the fields from 3 on of proc_pid_stat(5); the name before may hold anything."""
    try:
        stat = read(f"/proc/{pid}/stat")
    except OSError:  # gone
        return []
    return stat[stat.rindex(b")") + 2 :].split()
