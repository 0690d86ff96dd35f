"""List the TCP sockets that listen in this network namespace, whoever has them: sock_diag(7)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
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
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:  # NETLINK_SOCK_DIAG
        return [*_dump(netlink, socket.AF_INET), *_dump(netlink, socket.AF_INET6)]


def _dump(netlink: socket.socket, family: int) -> Iterator[Listening]:
    # inet_diag_req_v2: family, protocol, ext, pad, states, and an inet_diag_sockid of zeros
    request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN)
    netlink.send(
        _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + request
    )
    while True:
        data = netlink.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield _read(family, body)


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
