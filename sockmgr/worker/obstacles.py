"""What an import left behind that a copy of its process would lack, or share to the harm of both.

Looks only at this process, by /proc. What a copy may share without harm is let be: files, pipes,
listening sockets, and a socket by which lines go to syslog or the journal.
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
    """Say what the import did that no copy may have; "" if nothing. `before`: known sockets."""
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
    """Return the sockets that this process has, by name."""
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
        if not rest.startswith("Z"):  # over, and only not waited for
            yield f"{name} (pid {pid})"


def _connections(before: Container[str]) -> dict[str, list[int]]:
    """Return the descriptors of connections, by whom they go to."""
    peers = defaultdict(list)
    for fd, link in _links():
        if link.startswith("socket:") and link not in before and (peer := _peer(fd)):
            peers[peer].append(fd)
    return peers


def _peer(fd: int) -> str:
    """Return whom a socket is connected to; "" if to nobody, or if no answer can come by it."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            peer, own = sock.getpeername(), sock.getsockname()
        except OSError:  # ENOTCONN
            return ""
        # Nobody can answer a datagram from a socket without a name: unix(7). So is /dev/log used.
        if (sock.family, sock.type) == _ONE_WAY and not own:
            return ""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if sock.family == socket.AF_UNIX:
        return os.fsdecode(peer).replace("\0", "@", 1) or "a unix socket without a name"
    return f"{peer} ({sock.family!r})"


def _databases() -> dict[str, list[int]]:
    """Return the descriptors of SQLite databases that may be written to, by path.

    sqlite.org/howtocorrupt.html, 2.6: a connection must not be carried across a fork. One that was
    opened to read only, as by libraries that have their data in one, does no harm.
    """
    files = defaultdict(list)
    for fd, link in _links():
        with contextlib.suppress(OSError):  # it cannot be read at a place, and so is no database
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
            if writes and link.startswith("/") and os.pread(fd, len(_SQLITE), 0) == _SQLITE:
                files[link].append(fd)
    return files


def _links() -> Iterator[tuple[int, str]]:
    for fd in sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            yield fd, str(Path(f"/proc/self/fd/{fd}").readlink())


def _counted(fds: dict[str, list[int]], what: str) -> str:
    named = ", ".join(f"{name} (fd {', '.join(map(str, of))})" for name, of in fds.items())
    return f"{sum(map(len, fds.values()))} {what} {named}"
