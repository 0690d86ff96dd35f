"""Ask the kernel for its sockets by sock_diag(7), over netlink(7).

Owns nothing between calls; the socket that connect() returns is the caller's.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

# net/tcp_states.h
ESTABLISHED, SYN_RECV, LISTEN, NEW_SYN_RECV = 1, 3, 10, 12

ANY_COOKIE = b"\xff" * 8
UNIX_QUEUE = 0x10  # UDIAG_SHOW_RQLEN, linux/unix_diag.h
TCP_INFO = 2  # INET_DIAG_INFO, linux/inet_diag.h

_MESSAGE_SIZE = 72  # of inet_diag_msg, behind which are the attributes
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_UID_INODE = struct.Struct("=II")  # the last numbers of inet_diag_msg, linux/inet_diag.h
_PORTS = struct.Struct("!HH")  # the first of inet_diag_sockid
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_MULTI = 2  # NLM_F_MULTI


def connect() -> socket.socket:
    """Return a netlink socket for the functions below; raise OSError where it is refused."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)  # NETLINK_SOCK_DIAG


def to_port(port: int) -> bytes:
    """Return the inet_diag_sockid that fits sockets whose own port is `port`; 0 fits all."""
    return struct.pack("!HH", port, 0) + bytes(36) + ANY_COOKIE


def of_connection(own: tuple[Any, ...], other: tuple[Any, ...], family: int) -> bytes:
    """Return the inet_diag_sockid of the end of a connection that has the address `own`.

    Both addresses are as getsockname() has them.
    """
    hosts = (each[0].partition("%")[0] for each in (own, other))  # without the scope of IPv6
    sides = (socket.inet_pton(family, host).ljust(16, b"\0") for host in hosts)
    return struct.pack("!HH16s16sI", own[1], other[1], *sides, 0) + ANY_COOKIE


def state_of(body: bytes) -> int:
    """Return the state that an inet_diag_msg tells of, a constant from above."""
    return body[1]


def uid_of(body: bytes) -> int:
    """Return whose the socket is that an inet_diag_msg tells of."""
    return int(_UID_INODE.unpack_from(body, 64)[0])


def inode_of(body: bytes) -> int:
    """Return the inode of that socket; 0 while a connection waits to be accepted."""
    return int(_UID_INODE.unpack_from(body, 64)[1])


def ports_of(body: bytes) -> tuple[int, int]:
    """Return the own and the other port of that socket."""
    own, other = _PORTS.unpack_from(body, 4)
    return own, other


def attribute(body: bytes, number: int) -> bytes:
    """Return an attribute that was asked for with an inet_diag_msg; b"" if the kernel has none."""
    offset = _MESSAGE_SIZE
    while offset + _ATTRIBUTE.size <= len(body):
        length, found = _ATTRIBUTE.unpack_from(body, offset)
        if found == number:
            return body[offset + _ATTRIBUTE.size : offset + length]
        offset += (max(length, _ATTRIBUTE.size) + 3) & ~3
    return b""


def dump(
    netlink: socket.socket, family: int, sockid: bytes, states: int, number: int = 0
) -> Iterator[bytes]:
    """Yield an inet_diag_msg for each TCP socket that fits and has one of `states`, a bit each.

    With the attribute that has this `number`, if the kernel knows it.
    """
    return _answers(netlink, _inet_request(family, sockid, states, number), _REQUEST | _DUMP)


def look_up(
    netlink: socket.socket, family: int, sockid: bytes, states: int, number: int = 0
) -> bytes | None:
    """Return the inet_diag_msg of one TCP socket; raise FileNotFoundError if it is not there."""
    return next(_answers(netlink, _inet_request(family, sockid, states, number), _REQUEST), None)


def look_again(
    netlink: socket.socket, family: int, sockid: bytes, states: int, number: int = 0
) -> bytes | None:
    """Return the inet_diag_msg of a TCP socket that was seen before, by all of its `sockid`.

    None if it is gone, also if another socket answers for its addresses, such as the listener.
    """
    try:
        # Without the cookie: with it, an old kernel answers ESTALE where a newer one has ENOENT.
        body = look_up(netlink, family, sockid[:40] + ANY_COOKIE, states, number)
    except FileNotFoundError:
        return None
    return body if body is not None and body[4:52] == sockid else None


def look_up_unix(netlink: socket.socket, inode: int, show: int) -> bytes:
    """Return the unix_diag_msg of one socket, with the attributes `show`; raise OSError."""
    # unix_diag_req, for any state and any cookie
    request = struct.pack("=BBHIII8s", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, show, ANY_COOKIE)
    return next(_answers(netlink, request, _REQUEST), b"")


def _inet_request(family: int, sockid: bytes, states: int, number: int) -> bytes:
    attributes = 1 << number - 1 if number else 0
    return struct.pack("=BBBBI", family, socket.IPPROTO_TCP, attributes, 0, states) + sockid


def _answers(netlink: socket.socket, request: bytes, flags: int) -> Iterator[bytes]:
    netlink.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, flags, 1, 0) + request)
    while True:
        data = netlink.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind, of_message, _, _ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield body
            if not of_message & _MULTI:  # the answer is this one message
                return
