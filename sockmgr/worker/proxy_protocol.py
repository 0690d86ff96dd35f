"""Reads the header of the PROXY protocol, in which a proxy says who its client is.

Versions 1 and 2, by haproxy.org/download/3.0/doc/proxy-protocol.txt. Reads nothing after the
header, accepts only a header that is exactly right, and does not decide who may send one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

Address = tuple[str, int]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_TEXT = b"PROXY "
_LONGEST = 107  # bytes of a header of version 1, with its CRLF
_FIXED = struct.Struct("!BBH")  # after the signature: version and command, family, length
_LOCAL, _PROXY = 0x20, 0x21
_INET, _INET6, _UNSPEC, _UNIX = 0x11, 0x21, 0x00, 0x31  # with SOCK_STREAM
_ADDRESSES = {
    _INET: (struct.Struct("!4s4sHH"), ipaddress.IPv4Address),
    _INET6: (struct.Struct("!16s16sHH"), ipaddress.IPv6Address),
}
_SIZE_OF_UNIX = 216
_TLV = struct.Struct("!BH")
_TLS, _CLIENT_SPOKE_TLS = 0x20, 0x01  # PP2_TYPE_SSL, PP2_CLIENT_SSL
_LINE = re.compile(r"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (\d{1,5}) (\d{1,5})\r\n")
_UNKNOWN = re.compile(r"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n")


class HeaderError(Exception):
    """The connection does not begin with a header of this protocol."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a header says of the client.

    An address is None if the header names none; then the address of the connection itself counts.
    """

    client: Address | None = None
    server: Address | None = None
    tls: bool = False  # the client speaks TLS with the proxy


async def read(sock: socket.socket) -> Proxied:
    """Read the header from `sock`, which is non-blocking; raise HeaderError or OSError."""
    head = await asyncio.get_running_loop().sock_recv(sock, len(_SIGNATURE))
    if not head:
        raise ConnectionResetError("it ended before it had begun")  # a health check of a proxy
    head += await _exactly(sock, len(_SIGNATURE) - len(head))  # no header is any shorter
    if head == _SIGNATURE:
        fixed = await _exactly(sock, _FIXED.size)
        return binary(fixed, await _exactly(sock, _FIXED.unpack(fixed)[2]))
    if head.startswith(_TEXT):
        return text(await _line(sock, head))
    raise HeaderError(f"it begins with {head!r}")


def text(line: bytes) -> Proxied:
    """Return what a header of version 1 says."""
    shown = line.decode("latin-1")
    if _UNKNOWN.fullmatch(shown):
        return Proxied()
    match = _LINE.fullmatch(shown)
    if match is None:
        raise HeaderError(f"this is no header: {line!r}")
    kind = ipaddress.IPv4Address if match[1] == "4" else ipaddress.IPv6Address
    try:
        hosts = [str(kind(host)) for host in match.group(2, 3)]
    except ValueError as error:
        raise HeaderError(str(error)) from None
    ports = match.group(4, 5)
    if any(str(int(port)) != port or int(port) > 65535 for port in ports):
        raise HeaderError(f"these are no ports: {' '.join(ports)}")
    return Proxied((hosts[0], int(ports[0])), (hosts[1], int(ports[1])))


def binary(fixed: bytes, rest: bytes) -> Proxied:
    """Return what a header of version 2 says; `fixed` is the part right after the signature."""
    command, family, _ = _FIXED.unpack(fixed)
    if command == _LOCAL:  # a health check of the proxy; the addresses are to be ignored
        return Proxied()
    if command != _PROXY:
        raise HeaderError(f"version and command 0x{command:02x} are not known")
    if family in _ADDRESSES:
        layout, kind = _ADDRESSES[family]
        if len(rest) < layout.size:
            raise HeaderError(f"{len(rest)} bytes are too few for addresses")
        source, destination, *ports = layout.unpack_from(rest)
        ends = (str(kind(source)), ports[0]), (str(kind(destination)), ports[1])
        return _with_tlvs(Proxied(*ends), rest[layout.size :])
    if family == _UNIX and len(rest) >= _SIZE_OF_UNIX:
        return _with_tlvs(Proxied(), rest[_SIZE_OF_UNIX:])
    if family == _UNSPEC:
        return Proxied()
    raise HeaderError(f"family and transport 0x{family:02x}, {len(rest)} bytes, are not known")


def _with_tlvs(found: Proxied, rest: bytes) -> Proxied:
    for kind, value in _tlvs(rest):
        if kind == _TLS and value and value[0] & _CLIENT_SPOKE_TLS:
            return replace(found, tls=True)
    return found


def _tlvs(rest: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(rest):
        if len(rest) - at < _TLV.size:
            raise HeaderError("it ends within a field")
        kind, size = _TLV.unpack_from(rest, at)
        at += _TLV.size + size
        if at > len(rest):
            raise HeaderError("it ends within a field")
        yield kind, rest[at - size : at]


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while len(found) < size:
        piece = await loop.sock_recv(sock, size - len(found))
        if not piece:
            raise HeaderError("the connection ended within it")
        found += piece
    return found


async def _line(sock: socket.socket, line: bytes) -> bytes:
    """Return `line` with the rest of it from `sock`, and read nothing after the end of the line."""
    while not line.endswith(b"\n") and len(line) < _LONGEST:
        line += await _exactly(sock, 1)
        if not line.endswith(b"\n"):
            with contextlib.suppress(BlockingIOError):
                ahead = sock.recv(_LONGEST - len(line), socket.MSG_PEEK)
                line += sock.recv(ahead.find(b"\n") + 1 or len(ahead))
    return line
