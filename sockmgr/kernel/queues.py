"""Look at the queue of a listening socket: its length, its limit, whether it is open at all.

Every function answers one question about a socket that it borrows, and changes nothing.
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


def inode(sock: socket.socket) -> int:
    """Return the number that /proc/PID/fd shows for this socket, whoever holds it."""
    return os.fstat(sock.fileno()).st_ino


def is_listening(sock: socket.socket) -> bool:
    """Say whether connections can come in: nobody called shutdown(2) on this stream socket."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    # A unix listener that was shut down still says SO_ACCEPTCONN, but it hangs up.
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return not poll.poll(0)


def queued(sock: socket.socket) -> int:
    """Return how many connections wait to be accepted; for UDP, the bytes that wait."""
    if sock.type == socket.SOCK_DGRAM:
        # SK_MEMINFO_RMEM_ALLOC of SO_MEMINFO (55): unlike FIONREAD it counts empty datagrams.
        return int(struct.unpack_from("I", sock.getsockopt(socket.SOL_SOCKET, 55, 36))[0])
    return _queue(sock)[0]


def backlog(sock: socket.socket) -> int:
    """Return how many connections may wait, as the kernel has it: somaxconn caps listen(2).

    Of UDP 0: datagrams are no connections.
    """
    return 0 if sock.type == socket.SOCK_DGRAM else _queue(sock)[1]


def listen_overflows() -> int:
    """Return how many connections this network namespace has turned away for a full queue."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    # ListenDrops counts every ListenOverflows too, tcp_listendrop() in net/tcp.h
    return int(dict(zip(names, values, strict=True)).get("ListenDrops", 0))


def _queue(sock: socket.socket) -> tuple[int, int]:
    if sock.family == socket.AF_UNIX:
        return _unix_queue(inode(sock))
    # tcpi_unacked and tcpi_sacked of a listener, linux/tcp.h, tcp_get_info()
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    queue, limit = struct.unpack_from("II", info, 24)
    return queue, limit


def _unix_queue(ino: int) -> tuple[int, int]:
    """Ask sock_diag(7) for UDIAG_SHOW_RQLEN (0x10) of one unix socket."""
    # nlmsghdr (type 20 SOCK_DIAG_BY_FAMILY, flags 1 NLM_F_REQUEST), unix_diag_req
    request = struct.pack("=IHHII", 40, 20, 1, 1, 0) + struct.pack(
        "=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, ino, 0x10, 0xFFFFFFFF, 0xFFFFFFFF
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:  # NETLINK_SOCK_DIAG
        netlink.send(request)
        reply = netlink.recv(4096)
    kind = struct.unpack_from("=H", reply, 4)[0]
    if kind != 20:
        code = -struct.unpack_from("=i", reply, 16)[0]
        raise OSError(code, os.strerror(code))
    offset, end = 32, struct.unpack_from("=I", reply)[0]
    while offset < end:
        length, attribute = struct.unpack_from("=HH", reply, offset)
        if attribute == 4:  # UNIX_DIAG_RQLEN
            queue, limit = struct.unpack_from("=II", reply, offset + 4)
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
    """Return the backlog that listen(2) will really give."""
    try:
        return min(listen.backlog, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    except FileNotFoundError:  # no /proc/sys in this container
        return min(listen.backlog, 128)
