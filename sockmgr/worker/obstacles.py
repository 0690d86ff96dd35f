"""Finds what an import left behind that a copy of this process would lack, or would do harm with.

Looks only at this process, in /proc. It accepts whatever several processes may share without harm:
files, pipes, listening sockets, and a socket that sends lines to syslog or the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Container, Iterator
from pathlib import Path

_LOOPS = ("anon_inode:[eventpoll]", "anon_inode:[io_uring]")
_SQLITE = b"SQLite format 3\0"  # sqlite.org/fileformat.html, 1.3.1
_ONE_WAY = (socket.AF_UNIX, socket.SOCK_DGRAM)


def found(before: Container[str]) -> str:
    """Return why this process cannot be copied after the import, "" if it can.

    `before` has the sockets from before the import, which do not count.
    """
    if threads := list(_threads()):
        return f"started threads, which no worker would have: {', '.join(threads)}"
    if children := list(_children()):
        return f"started processes, which no worker could wait for: {', '.join(children)}"
    if loops := [str(fd) for fd, link in _links() if link in _LOOPS]:
        return f"made an event loop, which all workers would share: descriptor {', '.join(loops)}"
    if peers := _connections(before):
        several = "s" if sum(map(len, peers.values())) > 1 else ""
        return f"left {_counted(peers, f'connection{several} open to')}: all workers would share it"
    if files := _databases():
        several = "s" if len(files) > 1 else ""
        return f"left {_counted(files, f'SQLite database{several} open,')}: no copy may use it"
    return ""


def sockets() -> frozenset[str]:
    """Return the sockets of this process, in the form `socket:[INODE]`."""
    return frozenset(link for _, link in _links() if link.startswith("socket:"))


def _threads() -> Iterator[str]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            yield names.get(int(task.name)) or (task / "comm").read_text().strip()


def _children() -> Iterator[str]:
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        stat = Path(f"/proc/{pid}/stat").read_text()
        name, _, rest = stat.partition(" (")[2].rpartition(") ")
        if not rest.startswith("Z"):  # a zombie has ended, and only has not been waited for
            yield f"{name} (pid {pid})"


def _connections(before: Container[str]) -> dict[str, list[int]]:
    """Return the descriptors of connections, by the peer that each is connected to."""
    peers = defaultdict(list)
    for fd, link in _links():
        if link.startswith("socket:") and link not in before and (peer := _peer(fd)):
            peers[peer].append(fd)
    return peers


def _peer(fd: int) -> str:
    """Return the peer of a socket, "" if it has none, or if no answer can come from the peer."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            peer, own = sock.getpeername(), sock.getsockname()
        except OSError:  # ENOTCONN
            return ""
        # Nobody can answer a datagram from a socket without a name, unix(7): /dev/log's clients.
        if (sock.family, sock.type) == _ONE_WAY and not own:
            return ""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if sock.family == socket.AF_UNIX:
        return os.fsdecode(peer).replace("\0", "@", 1) or "a unix socket without a name"
    return f"{peer} ({sock.family!r})"


def _databases() -> dict[str, list[int]]:
    """Return the descriptors of SQLite databases that are open for writing, by path.

    A connection must not be carried across a fork (sqlite.org/howtocorrupt.html, 2.6). A database
    that is open only for reading does no harm; some libraries have their data in one.
    """
    files = defaultdict(list)
    for fd, link in _links():
        with contextlib.suppress(OSError):  # pread(2) refuses what cannot seek: no database
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
            if writes and link.startswith("/") and os.pread(fd, len(_SQLITE), 0) == _SQLITE:
                files[link].append(fd)
    return files


def _links() -> Iterator[tuple[int, str]]:
    for fd in sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this listing is closed
            yield fd, str(Path(f"/proc/self/fd/{fd}").readlink())


def _counted(fds: dict[str, list[int]], what: str) -> str:
    named = ", ".join(f"{name} (fd {', '.join(map(str, of))})" for name, of in fds.items())
    return f"{sum(map(len, fds.values()))} {what} {named}"
