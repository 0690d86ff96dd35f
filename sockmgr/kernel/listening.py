"""List the sockets that listen in this network namespace, whichever process has them."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from sockmgr.kernel import sock_diag, unix_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """One listening TCP socket: its inode, as in /proc/PID/fd, its address and its queue."""

    inode: int
    host: str
    port: int
    queued: int
    backlog: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listening() -> list[Listening]:
    """Return the listening TCP sockets; raise OSError where sock_diag(7) is refused."""
    with sock_diag.connect() as netlink:
        return [
            _read(family, body)
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in sock_diag.dump(netlink, family, sock_diag.to_port(0), 1 << sock_diag.LISTEN)
        ]


def listening_names() -> frozenset[str]:
    """Return the paths, and the abstract names after an "@", of all listening unix sockets.

    A path is listed for as long as its socket listens, even if it was removed. Nothing is listed
    where /proc has no table of unix sockets (ProcSubset=pid, systemd.exec(5)).
    """
    try:
        return frozenset(row.name for row in unix_table.rows() if row.listens)
    except FileNotFoundError:
        return frozenset()


def _read(family: int, body: bytes) -> Listening:
    # inet_diag_msg: four bytes, the sockid (ports and addresses in network order), then numbers
    size = 4 if family == socket.AF_INET else 16
    _, queued, backlog = struct.unpack_from("=III", body, 52)
    return Listening(
        inode=sock_diag.inode_of(body),
        host=socket.inet_ntop(family, body[8 : 8 + size]),
        port=struct.unpack_from("!H", body, 4)[0],
        queued=queued,
        backlog=backlog,
    )
