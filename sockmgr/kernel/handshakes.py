"""See the TCP handshakes that have begun and not ended, through sock_diag(7).

A handshake belongs to the queue that its SYN reached, whatever is steered later, and neither names
its listener. So the half-open ones of a port are listed once, after a switch, and then looked up
one by one until each is established or gone. Owns nothing between calls.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass

from sockmgr.kernel import sock_diag

_SYN_RECV, _NEW_SYN_RECV = 3, 12  # net/tcp_states.h
_HALF_OPEN = 1 << _SYN_RECV | 1 << _NEW_SYN_RECV


@dataclass(frozen=True, slots=True)
class Handshake:
    """One half-open handshake: its inet_diag_sockid, which ends with a cookie nobody else has."""

    family: int
    sockid: bytes


def half_open(family: int, port: int) -> frozenset[Handshake]:
    """List the handshakes that a listener of `family` on `port` has not finished.

    A handshake has the family of its listener, IPv4 with a dual-stack one too. Takes 20 ms and
    more, for the kernel walks all connections.
    """
    with sock_diag.connect() as netlink:
        found = sock_diag.dump(netlink, family, sock_diag.to_port(port), _HALF_OPEN)
        return frozenset(Handshake(family, body[4:52]) for body in found if body[1] == _SYN_RECV)


def under_way(queue: socket.socket) -> bool:
    """Tell whether anybody may have begun a handshake at the address of `queue`."""
    if queue.type != socket.SOCK_STREAM:
        return False
    try:
        return bool(half_open(queue.family, queue.getsockname()[1]))
    except OSError:  # no sock_diag, so nobody knows
        return True


def still_open(handshakes: Collection[Handshake]) -> frozenset[Handshake]:
    """Return those of `handshakes` that are still half-open: state and cookie are the same."""
    with sock_diag.connect() as netlink:
        return frozenset(each for each in handshakes if _is_open(netlink, each))


def _is_open(netlink: socket.socket, handshake: Handshake) -> bool:
    # Asked without the cookie: with it, an old kernel says ESTALE where a newer one says ENOENT.
    sockid = handshake.sockid[:40] + sock_diag.ANY_COOKIE
    try:
        body = sock_diag.look_up(netlink, handshake.family, sockid, _HALF_OPEN)
    except FileNotFoundError:
        return False
    # An unknown tuple is answered with its listener, an ended handshake with the connection.
    return body is not None and body[1] == _SYN_RECV and body[4:52] == handshake.sockid
