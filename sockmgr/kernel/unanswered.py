"""List the TCP connections whose clients wait for an answer, through sock_diag(7).

The kernel counts what was sent and knows when something came last, so a request of which half has
come is seen from outside of the server that reads it. Owns nothing between calls.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from sockmgr.kernel import sock_diag

_ESTABLISHED = 1 << sock_diag.ESTABLISHED
# The milliseconds since data was sent and since data came, and the segments of data that were sent:
# tcpi_last_data_sent, tcpi_last_data_recv and tcpi_data_segs_out of tcp_info, linux/tcp.h.
_TIMES, _SENT = struct.Struct("=I4xI"), struct.Struct("=I")
_TIMES_AT, _SENT_AT = 44, 156


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A connection of whose client we heard last: its inet_diag_sockid, and what was `sent`."""

    family: int
    sockid: bytes
    sent: int


def to_port(family: int, port: int, silent: int) -> frozenset[Unanswered]:
    """List the connections to `port` that wait for an answer; raise OSError.

    Their clients have connected or sent something less than `silent` milliseconds ago, and nothing
    was sent to them since. An IPv4 client of a dual-stack listener has the family AF_INET6.
    """
    with sock_diag.connect() as netlink:
        found = sock_diag.dump(
            netlink, family, sock_diag.to_port(port), _ESTABLISHED, sock_diag.TCP_INFO
        )
        each = (_waiting(family, body, silent) for body in found)
        return frozenset(connection for connection in each if connection)


def still(connections: Collection[Unanswered], silent: int) -> frozenset[Unanswered]:
    """Return those of `connections` to which nothing was sent since they were listed.

    Without those that are closed, and those that have been silent for so many milliseconds.
    """
    with sock_diag.connect() as netlink:
        return frozenset(each for each in connections if _is_still(netlink, each, silent))


def _is_still(netlink: socket.socket, connection: Unanswered, silent: int) -> bool:
    body = sock_diag.look_again(
        netlink, connection.family, connection.sockid, _ESTABLISHED, sock_diag.TCP_INFO
    )
    return body is not None and _waiting(connection.family, body, silent) == connection


def _waiting(family: int, body: bytes, silent: int) -> Unanswered | None:
    info = sock_diag.attribute(body, sock_diag.TCP_INFO)
    if sock_diag.state_of(body) != sock_diag.ESTABLISHED or len(info) < _SENT_AT + _SENT.size:
        return None
    since_sent, since_heard = _TIMES.unpack_from(info, _TIMES_AT)
    (sent,) = _SENT.unpack_from(info, _SENT_AT)
    # The kernel sets both times when it makes the socket, so they are alike before any data.
    if since_heard >= silent or (sent and since_heard >= since_sent):
        return None
    return Unanswered(family, body[4:52], sent)
