"""The connections that came to listeners, as the kernel lists them. Owns nothing between calls.

Not read from /proc/net/tcp, which tells of those in TIME_WAIT as well: a hundred thousand, easily.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

_HEADER = struct.Struct("=IHHII")
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
# net/tcp_states.h: ESTABLISHED, FIN_WAIT1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING
_OPEN = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
_ACCEPTS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix: it listens


def to_port(family: int, port: int) -> frozenset[int]:
    """Return the inodes of the TCP connections that came to `port`; those not accepted have 0.

    A connection has the family of its listener, IPv4 with a dual-stack one too.
    """
    # inet_diag_req_v2 with an inet_diag_sockid: source and destination port, zeros, no cookie
    sockid = struct.pack("!HH", port, 0) + bytes(36) + b"\xff" * 8
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _OPEN) + sockid
    size = _HEADER.size + len(request)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:  # NETLINK_SOCK_DIAG
        netlink.send(_HEADER.pack(size, _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + request)
        # inet_diag_msg: the inode is the last of its numbers
        return frozenset(struct.unpack_from("=I", body, 68)[0] for body in _replies(netlink))


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


def _replies(netlink: socket.socket) -> Iterator[bytes]:
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
            yield body
