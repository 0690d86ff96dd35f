"""Look at the queue of a listening socket: its length, its limit, and whether it is open at all.

Every function looks at sockets that it borrows, and changes nothing.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from sockmgr.config.spec import Listen
from sockmgr.errors import ListenError
from sockmgr.kernel import sock_diag


def inode(sock: socket.socket) -> int:
    """Return the inode of a socket, which is the same in /proc/PID/fd of every process with it."""
    return os.fstat(sock.fileno()).st_ino


def is_listening(sock: socket.socket) -> bool:
    """Return whether a stream socket takes connections: no process has called shutdown(2) on it."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    # A unix listener that was shut down still has SO_ACCEPTCONN, but poll(2) says POLLRDHUP.
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return not poll.poll(0)


def is_down(sock: socket.socket) -> bool:
    """Return whether a process has shut down a listening socket."""
    # Datagram sockets have no such state: they take what comes as soon as they are bound.
    return sock.type == socket.SOCK_STREAM and not is_listening(sock)


def queued(sock: socket.socket) -> int:
    """Return how many connections wait to be accepted; for UDP, the bytes that wait."""
    if sock.type == socket.SOCK_DGRAM:
        # SK_MEMINFO_RMEM_ALLOC of SO_MEMINFO (55): unlike FIONREAD it counts empty datagrams.
        return int(struct.unpack_from("I", sock.getsockopt(socket.SOL_SOCKET, 55, 36))[0])
    return _queue(sock)[0]


def backlog(sock: socket.socket) -> int:
    """Return how many connections may wait: the backlog of listen(2), capped by somaxconn.

    It is 0 for UDP, which has no connections.
    """
    return 0 if sock.type == socket.SOCK_DGRAM else _queue(sock)[1]


def listen_overflows() -> int:
    """Return how many connections this network namespace has dropped because a queue was full."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    # ListenDrops includes ListenOverflows: tcp_listendrop() in net/tcp.h.
    return int(dict(zip(names, values, strict=True)).get("ListenDrops", 0))


def _queue(sock: socket.socket) -> tuple[int, int]:
    if sock.family == socket.AF_UNIX:
        return _unix_queue(inode(sock))
    # For a listener tcpi_unacked and tcpi_sacked are these: tcp_get_info() in net/ipv4/tcp.c.
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    queue, limit = struct.unpack_from("II", info, 24)
    return queue, limit


def _unix_queue(ino: int) -> tuple[int, int]:
    """Return how many connections wait at a unix socket, and how many may."""
    with sock_diag.connect() as netlink:
        message = sock_diag.look_up_unix(netlink, ino, sock_diag.UNIX_QUEUE)
    offset = 16  # of the first attribute behind unix_diag_msg, each an rtattr: rtnetlink(7)
    while offset < len(message):
        length, attribute = struct.unpack_from("=HH", message, offset)
        if attribute == 4:  # UNIX_DIAG_RQLEN
            queue, limit = struct.unpack_from("=II", message, offset + 4)
            return queue, limit
        offset += (length + 3) & ~3
    return 0, 0


def check_group(listen: Listen, socks: Sequence[socket.socket]) -> None:
    """Raise ListenError unless `socks` are one SO_REUSEPORT group on one address."""
    for sock in socks:
        same = sock.family == socks[0].family and sock.getsockname() == socks[0].getsockname()
        grouped = sock.family != socket.AF_UNIX and sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT
        )
        if not same or not grouped:
            raise ListenError(
                f"listener {listen.name} was given {len(socks)} sockets that are not one group: "
                + ", ".join(str(each.getsockname()) for each in socks),
                do="give each its own name (FileDescriptorName=), or set ReusePort=yes and "
                "repeat the same ListenStream=",
            )


def reachable(listen: Listen) -> int:
    """Return the backlog that listen(2) will really give to a listener: somaxconn caps it."""
    try:
        return min(listen.backlog, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    except FileNotFoundError:  # no /proc/sys in this container
        return min(listen.backlog, 128)
