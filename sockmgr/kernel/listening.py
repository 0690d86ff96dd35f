"""List the TCP sockets that listen in this network namespace, whoever has them: sock_diag(7)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from sockmgr import sock_diag

_LISTEN = 10  # net/tcp_states.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """One listening socket: the inode that /proc/PID/fd shows, its address and its queue."""

    inode: int
    host: str
    port: int
    queued: int
    backlog: int


def listening() -> list[Listening]:
    """Return all of them; raises OSError where sock_diag is refused."""
    with sock_diag.connect() as netlink:
        return [
            _read(family, body)
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in sock_diag.dump(netlink, family, sock_diag.to_port(0), 1 << _LISTEN)
        ]


def _read(family: int, body: bytes) -> Listening:
    # inet_diag_msg: four bytes, the sockid (ports and addresses in network order), then numbers
    size = 4 if family == socket.AF_INET else 16
    _, queued, backlog, _, inode = struct.unpack_from("=IIIII", body, 52)
    return Listening(
        inode=inode,
        host=socket.inet_ntop(family, body[8 : 8 + size]),
        port=struct.unpack_from("!H", body, 4)[0],
        queued=queued,
        backlog=backlog,
    )
