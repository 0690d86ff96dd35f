"""The connections that came to listeners, as the kernel lists them. Owns nothing between calls.

Not read from /proc/net/tcp, which tells of those in TIME_WAIT as well: a hundred thousand, easily.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterable
from pathlib import Path

from sockmgr.kernel import sock_diag

# net/tcp_states.h: ESTABLISHED, FIN_WAIT1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING
_OPEN = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
_ACCEPTS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix: it listens


def to_addresses(addresses: Iterable[str]) -> frozenset[int]:
    """Return the inodes of the connections that came to these, as listeners tell their addresses.

    Raises OSError where the kernel refuses to tell. Sockets for datagrams have none.
    """
    found: set[int] = set()
    for address in addresses:
        scheme, _, rest = address.partition(":")
        match scheme:
            case "tcp":
                host, _, port = rest.rpartition(":")
                found |= to_port(socket.AF_INET6 if "[" in host else socket.AF_INET, int(port))
            case "unix":
                found |= to_names({rest.removeprefix("//")})
            case "unix-abstract":
                found |= to_names({f"@{rest}"})
            case _:
                pass
    return frozenset(found)


def to_port(family: int, port: int) -> frozenset[int]:
    """Return the inodes of the TCP connections that came to `port`; those not accepted have 0.

    A connection has the family of its listener, IPv4 with a dual-stack one too.
    """
    with sock_diag.connect() as netlink:
        found = sock_diag.dump(netlink, family, sock_diag.to_port(port), _OPEN)
        # inet_diag_msg: the inode is the last of its numbers
        return frozenset(struct.unpack_from("=I", body, 68)[0] for body in found)


def to_names(names: Collection[str]) -> frozenset[int]:
    """Return the inodes of the connections that came to unix sockets; "@" begins abstract names."""
    found = set()
    text = Path("/proc/net/unix").read_text(errors="replace") if names else ""
    for line in text.splitlines()[1:]:
        # Num RefCount Protocol Flags Type St Inode Path; what was accepted has its listener's path
        fields = line.split(None, 7)
        if fields[-1] in names and not int(fields[3], 16) & _ACCEPTS:
            found.add(int(fields[6]))
    return frozenset(found)
