"""Ask the kernel for its TCP sockets: sock_diag(7), over netlink(7). What they mean, others know.

Owns nothing between calls; the socket that connect() returns is the caller's.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

ANY_COOKIE = b"\xff" * 8

_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_MULTI = 2  # NLM_F_MULTI


def connect() -> socket.socket:
    """Return a socket to ask with. Raises OSError where that is refused."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)  # NETLINK_SOCK_DIAG


def to_port(port: int) -> bytes:
    """Return the inet_diag_sockid of whatever has `port` as its own; 0: of everything."""
    return struct.pack("!HH", port, 0) + bytes(36) + ANY_COOKIE


def dump(netlink: socket.socket, family: int, sockid: bytes, states: int) -> Iterator[bytes]:
    """Yield an inet_diag_msg for each socket that fits and is in one of `states`, a bit each."""
    return _answers(netlink, family, sockid, states, _REQUEST | _DUMP)


def look_up(netlink: socket.socket, family: int, sockid: bytes, states: int) -> bytes | None:
    """Return the inet_diag_msg of one socket; raises FileNotFoundError if it is not there."""
    return next(_answers(netlink, family, sockid, states, _REQUEST), None)


def _answers(
    netlink: socket.socket, family: int, sockid: bytes, states: int, flags: int
) -> Iterator[bytes]:
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, states) + sockid
    netlink.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, flags, 1, 0) + request)
    while True:
        data = netlink.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind, told, _, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield body
            if not told & _MULTI:  # this was all
                return
