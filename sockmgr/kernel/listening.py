"""List the sockets that listen in this network namespace, whoever has them.

Those of TCP by sock_diag(7), the names of unix sockets by /proc/net/unix.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from sockmgr.kernel import sock_diag

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


def listening_names() -> frozenset[str]:
    """Return the paths, and the abstract names behind an @, of all listening unix sockets.

    A path is there for as long as somebody listens, though it may have been removed. Nothing is
    known where ProcSubset=pid (systemd.exec(5)) leaves /proc without that table.
    """
    try:
        text = Path("/proc/net/unix").read_text(errors="surrogateescape")
    except FileNotFoundError:
        return frozenset()
    # Num RefCount Protocol Flags Type St Inode Path; Flags has __SO_ACCEPTCON, unix(7)
    rows = (line.split(maxsplit=7) for line in text.splitlines()[1:])
    return frozenset(row[7] for row in rows if len(row) == 8 and int(row[3], 16) & 0x10000)


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
