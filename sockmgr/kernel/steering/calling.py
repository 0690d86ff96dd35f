"""Connections of our own to the address of a group: where from, where to, and whether they came.

Owns nothing between calls.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from sockmgr.kernel import sock_diag
from sockmgr.kernel.closing import closed_on_error

_ANY = 0xFFFFFFFF  # a bit for each state
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared


@dataclass(frozen=True, slots=True)
class Way:
    """How a connection of ours comes to a queue: from an address of this host to another one.

    It comes from the loopback address, so that no packet of it leaves this host. A link-local
    address is reached from itself only.
    """

    family: socket.AddressFamily
    source: str
    target: tuple[Any, ...]

    @classmethod
    def to(cls, queue: socket.socket) -> Way:
        host, port, *scope = queue.getsockname()
        family = queue.family
        # A host may have no IPv6 at all on its loopback interface, where "::" means both.
        if host == "::" and not queue.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            host, scope, family = "127.0.0.1", [], socket.AF_INET
        host = _WILDCARDS.get(host, host)
        source = "127.0.0.1" if family == socket.AF_INET else "::1"
        if host.startswith("fe80:"):
            source = host
        return cls(family, source, (host, port, *scope))

    def bound(self) -> socket.socket:
        """Return a socket, the caller's, whose address and port nobody else on this host can have.

        It does not block. Raises OSError.
        """
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        with closed_on_error(sock):
            sock.setblocking(False)
            # Neither SO_REUSEADDR nor SO_REUSEPORT: with those others could bind the same.
            sock.bind((self.source, 0, *self.target[2:]))
        return sock


def listens_at(sock: socket.socket, way: Way) -> int:
    """Return the inode of a socket that listens where `sock` is about to connect to.

    Where several are one group it is any of these; 0 if there is none, or none is told of.
    """
    state, inode = _found(sock, way)
    return inode if state == sock_diag.LISTEN else 0


def has_come(sock: socket.socket, way: Way) -> bool:
    """Return whether the connection of `sock` belongs to a queue for good, or has ended already.

    Where the kernel answers with SYN cookies (tcp_syncookies) it belongs to none before the last
    packet of its handshake has come. True if the kernel does not tell.
    """
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != sock_diag.ESTABLISHED or _found(sock, way)[0] != sock_diag.LISTEN


def _found(sock: socket.socket, way: Way) -> tuple[int, int]:
    """Return the state and the inode of the other end of `sock`, or else of a listener there.

    Both are 0 if there is nothing, or if sock_diag(7) is refused.
    """
    sockid = sock_diag.of_connection(way.target, sock.getsockname(), way.family)
    try:
        with sock_diag.connect() as netlink:
            body = sock_diag.look_up(netlink, way.family, sockid, _ANY)
    except OSError:
        return 0, 0
    return (sock_diag.state_of(body), sock_diag.inode_of(body)) if body else (0, 0)
