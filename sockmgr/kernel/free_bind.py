"""Bind sockets to addresses that this host may get later: ip(7), ipv6(7). Takes no privilege."""

from __future__ import annotations

import errno
import socket

# Not in Python's socket module; linux/in.h and linux/in6.h.
_OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),  # IP_FREEBIND
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),  # IPV6_FREEBIND
}


def allow(sock: socket.socket) -> None:
    """Let `sock` be bound to an address that this host lacks: it serves once the host has it."""
    sock.setsockopt(*_OPTIONS[socket.AddressFamily(sock.family)], 1)


def is_absent(sock: socket.socket) -> bool:
    """Return whether this host lacks the address of a TCP or UDP socket now."""
    host, _, *scope = sock.getsockname()
    with socket.socket(sock.family, sock.type) as probe:
        try:
            probe.bind((host, 0, *scope))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL
    return False
