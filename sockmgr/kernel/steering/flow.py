"""One connection of our own, as a program that chooses a queue sees its packets. Owns nothing."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import NamedTuple


class Field(NamedTuple):
    """What a packet has in `size` bytes at an offset from its IP header, as one number."""

    size: int
    offset: int
    value: int


@dataclass(frozen=True, slots=True)
class Flow:
    """The addresses and ports of one connection, or of one sender of datagrams.

    While its socket is open nobody else on this host has the same: it was bound without
    SO_REUSEADDR and SO_REUSEPORT, so no other socket can be bound to its address and port.
    """

    fields: tuple[Field, ...]
    length: int  # bytes from the IP header on that have all fields

    @classmethod
    def of(cls, sock: socket.socket, host: str) -> Flow:
        """Return that of a socket which is bound and about to send to `host`."""
        source, port = sock.getsockname()[:2]
        texts = (each.partition("%")[0] for each in (source, host))  # "%eth0" is no part of it
        addresses = b"".join(socket.inet_pton(sock.family, each) for each in texts)
        # The first byte has version and, of IPv4, the length of a header without options; none of
        # our sockets sets a traffic class, which begins in the same byte of IPv6.
        if sock.family == socket.AF_INET:
            first, protocol, at = Field(1, 0, 0x45), 9, 12
        else:
            first, protocol, at = Field(1, 0, 0x60), 6, 8
        words = [
            Field(4, at + n, int.from_bytes(addresses[n : n + 4], "big"))
            for n in range(0, len(addresses), 4)
        ]
        transport = at + len(addresses)  # which begins with the source port
        kind = Field(1, protocol, sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
        # The port first: it differs in nearly all other packets.
        return cls((first, Field(2, transport, port), kind, *words), transport + 2)
