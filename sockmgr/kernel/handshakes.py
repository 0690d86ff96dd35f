"""List TCP handshakes that have begun and not ended, through sock_diag(7).

A handshake belongs to the queue that its SYN reached, wherever later SYNs are steered, and the
kernel does not show which queue that is. So after a switch the half-open handshakes of the port
are listed once, and then looked up one by one until each is established or gone. Owns nothing
between calls.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from sockmgr.kernel import sock_diag

_HALF_OPEN = 1 << sock_diag.SYN_RECV | 1 << sock_diag.NEW_SYN_RECV


@dataclass(frozen=True, slots=True)
class Handshake:
    """One half-open handshake: its inet_diag_sockid, which ends with a cookie of its own."""

    family: int
    sockid: bytes


def half_open(family: int) -> dict[int, frozenset[Handshake]]:
    """List the half-open handshakes of all listeners of `family` by port; raise OSError.

    A handshake has the family of its listener: AF_INET6 for an IPv4 client of a dual-stack one.
    Takes 20 ms and more, because the kernel walks all connections, as it would for one port.
    """
    found: dict[int, set[Handshake]] = defaultdict(set)
    with sock_diag.connect() as netlink:
        for body in sock_diag.dump(netlink, family, sock_diag.to_port(0), _HALF_OPEN):
            if _is_half_open(body):
                found[sock_diag.ports_of(body)[0]].add(Handshake(family, body[4:52]))
    return {port: frozenset(each) for port, each in found.items()}


def under_way(queue: socket.socket) -> bool:
    """Return whether some client may have begun a handshake at the address of `queue`."""
    if queue.type != socket.SOCK_STREAM:
        return False
    try:
        return queue.getsockname()[1] in half_open(queue.family)
    except OSError:  # sock_diag is refused, so it is not known
        return True


def still_open(handshakes: Collection[Handshake]) -> frozenset[Handshake]:
    """Return those of `handshakes` that are still half-open, with the same cookie."""
    with sock_diag.connect() as netlink:
        return frozenset(each for each in handshakes if _is_open(netlink, each))


def _is_half_open(body: bytes) -> bool:
    return sock_diag.state_of(body) == sock_diag.SYN_RECV


def _is_open(netlink: socket.socket, handshake: Handshake) -> bool:
    body = sock_diag.look_again(netlink, handshake.family, handshake.sockid, _HALF_OPEN)
    # If the handshake has ended, the kernel may answer with the connection.
    return body is not None and _is_half_open(body)
