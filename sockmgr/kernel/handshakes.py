"""See the TCP handshakes that have begun and not ended, through sock_diag(7).

A handshake belongs to the queue that its SYN reached, whatever is steered later, and neither names
its listener. So the half-open ones of a port are listed once, after a switch, and then looked up
one by one until each is established or gone. Owns nothing between calls.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_SYN_RECV, _NEW_SYN_RECV = 3, 12  # net/tcp_states.h
_HEADER = struct.Struct("=IHHII")
_ANY_COOKIE = b"\xff" * 8


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
    sockid = struct.pack("!HH", port, 0) + bytes(36) + _ANY_COOKIE
    with _connect() as netlink:
        _ask(netlink, family, sockid, flags=_REQUEST | _DUMP)
        return frozenset(
            Handshake(family, body[4:52]) for body in _replies(netlink) if body[1] == _SYN_RECV
        )


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
    with _connect() as netlink:
        return frozenset(each for each in handshakes if _is_open(netlink, each))


def _is_open(netlink: socket.socket, handshake: Handshake) -> bool:
    # Asked without the cookie: with it, an old kernel says ESTALE where a newer one says ENOENT.
    _ask(netlink, handshake.family, handshake.sockid[:40] + _ANY_COOKIE, flags=_REQUEST)
    try:
        body = next(_replies(netlink), None)
    except FileNotFoundError:
        return False
    # An unknown tuple is answered with its listener, an ended handshake with the connection.
    return body is not None and body[1] == _SYN_RECV and body[4:52] == handshake.sockid


def _connect() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)  # NETLINK_SOCK_DIAG


def _ask(netlink: socket.socket, family: int, sockid: bytes, *, flags: int) -> None:
    states = 1 << _SYN_RECV | 1 << _NEW_SYN_RECV
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, states) + sockid
    netlink.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, flags, 1, 0) + request)


def _replies(netlink: socket.socket) -> Iterator[bytes]:
    """Yield the inet_diag_msg bodies of one answer; raises OSError as the kernel says it."""
    while True:
        data = netlink.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield body
            if not flags & 2:  # NLM_F_MULTI: without it this was all
                return
