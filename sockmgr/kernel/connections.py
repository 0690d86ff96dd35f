"""List the connections that came to a listener. Owns nothing between calls.

Those of TCP are asked for by sock_diag(7): /proc/net/tcp has those in TIME_WAIT as well, of which
there may be a hundred thousand.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterable

from sockmgr.kernel import sock_diag, unix_table

# net/tcp_states.h: ESTABLISHED, FIN_WAIT1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING
_OPEN = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11


def to_addresses(addresses: Iterable[str]) -> frozenset[int]:
    """Return the inodes of the connections that came to addresses such as `tcp://[::]:8000`.

    UDP has no connections. Raises OSError where sock_diag(7) is refused.
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
    """Return the inodes of the TCP connections that came to `port`; 0 is one not yet accepted.

    A connection has the family of its listener: AF_INET6 for an IPv4 client of a dual-stack one.
    """
    with sock_diag.connect() as netlink:
        found = sock_diag.dump(netlink, family, sock_diag.to_port(port), _OPEN)
        return frozenset(map(sock_diag.inode_of, found))


def clients_of(port: int) -> dict[int, int]:
    """Return the inode of each accepted TCP connection to `port`, with its client's own port."""
    found: dict[int, int] = {}
    with sock_diag.connect() as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in sock_diag.dump(netlink, family, sock_diag.to_port(port), _OPEN):
                found[sock_diag.inode_of(body)] = sock_diag.ports_of(body)[1]
    found.pop(0, None)  # those that nobody has accepted
    return found


def is_accepted(sock: socket.socket) -> bool:
    """Return whether somebody has accepted this connection of ours by TCP to a listener here.

    True if the kernel does not tell. Raises OSError if the connection was reset.
    """
    try:
        body = _other_end(sock)
    except FileNotFoundError:  # it has ended, which may have been in the queue
        body = None
    except OSError:  # sock_diag(7) is refused
        return True
    if body is None or sock_diag.state_of(body) == sock_diag.LISTEN:
        with contextlib.suppress(BlockingIOError):
            sock.recv(1, socket.MSG_PEEK)
        return True
    # One in a queue has no inode, as one has that somebody accepted and closed.
    return sock_diag.state_of(body) != sock_diag.ESTABLISHED or bool(sock_diag.inode_of(body))


def user_of_other(sock: socket.socket) -> int | None:
    """Return whose the other end of a connection by TCP is; None if it is not on this host.

    Also if the kernel does not tell, or if that end has been closed.
    """
    try:
        body = _other_end(sock)
    except OSError:
        return None
    if body is None or sock_diag.state_of(body) == sock_diag.LISTEN:
        return None
    return sock_diag.uid_of(body)


def _other_end(sock: socket.socket) -> bytes | None:
    """Return the inet_diag_msg of the other end, or of a listener there. Raises OSError."""
    sockid = sock_diag.of_connection(sock.getpeername(), sock.getsockname(), sock.family)
    with sock_diag.connect() as netlink:
        return sock_diag.look_up(netlink, sock.family, sockid, _OPEN)


def to_names(names: Collection[str]) -> frozenset[int]:
    """Return the inodes of the connections that came to unix sockets; "@" begins abstract names."""
    rows = unix_table.rows() if names else ()
    return frozenset(row.inode for row in rows if row.name in names and not row.listens)
