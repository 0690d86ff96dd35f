"""Read the text of an address, such as `tcp://127.0.0.1:8000`. Opens nothing."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, unquote

from sockmgr.config.spec import Address, Scheme

FORMS = (
    "tcp://HOST:PORT, tcp://[::1]:PORT, udp://HOST:PORT, unix:///PATH, unix-abstract:NAME or fd://N"
)
PLANNED = ("vsock", "seqpacket", "unix-seqpacket")
_SUN_PATH = 108  # bytes of sockaddr_un.sun_path, one of them for the NUL (unix(7))
# For editors: matches every address that parse() accepts, and few others.
PATTERN = (
    r"(?:tcp|udp)://(?:\[[0-9A-Fa-f:.]+(?:%[^\]]+)?\]|[A-Za-z0-9._-]+)"
    r":(?:[0-9]{1,4}|[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    r"|unix://(?:/|%2[Ff])[^?\x00]*[^?/\x00](?:\?(?:[^=&]+=[^&]*(?:&[^=&]+=[^&]*)*)?)?"
    r"|unix-abstract:(?:[^/\x00][^\x00]{0,106}|/(?:[^/\x00][^\x00]{0,105})?)"
    r"|fd://[0-9]{1,7}"
)
_HOST_PORT = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]+)", re.ASCII)


def parse(text: str) -> tuple[Address, dict[str, str]]:
    """Return the address and its `?key=value` options; raise ValueError, which says what is wrong.

    Only unix paths have options. The caller checks them.
    """
    name, colon, rest = text.partition(":")
    if name in PLANNED:
        raise ValueError(f"this version does not have {name} listeners; allowed: {FORMS}")
    try:
        scheme = Scheme(name) if colon else None
    except ValueError:
        scheme = None
    match scheme:
        case Scheme.TCP | Scheme.UDP if rest.startswith("//"):
            return _internet(scheme, rest[2:]), {}
        case Scheme.UNIX if rest.startswith("//"):
            path, _, query = rest[2:].partition("?")
            return _path(path), _options(query)
        case Scheme.ABSTRACT:
            return _abstract(rest), {}
        case Scheme.FD if re.fullmatch(r"//[0-9]{1,7}", rest, re.ASCII):
            return Address(scheme=scheme, fd=int(rest[2:])), {}
        case _:
            raise ValueError(f"allowed: {FORMS}")


def _internet(scheme: Scheme, text: str) -> Address:
    match = _HOST_PORT.fullmatch(text)
    if not match or len(match["port"]) > 5 or int(match["port"]) > 65535:
        raise ValueError(
            f"allowed: {scheme}://HOST:PORT or {scheme}://[IPv6 ADDRESS]:PORT, with a port from 0 "
            "(the kernel chooses one) to 65535"
        )
    host = match["host"] or ""
    if match["six"] is not None:
        try:
            host = str(ipaddress.IPv6Address(match["six"]))
        except ValueError:
            raise ValueError("what is in the brackets is not an IPv6 address") from None
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError(
            f"it needs a host: {scheme}://0.0.0.0:PORT for all of IPv4, {scheme}://[::]:PORT for "
            "all of IPv6, or an address or name of this machine"
        )
    return Address(scheme=scheme, host=host, port=int(match["port"]))


def _path(text: str) -> Address:
    path = unquote(text)
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("allowed: unix:///PATH, the absolute path of a socket (three slashes)")
    if len(path.encode("utf-8", "surrogateescape")) >= _SUN_PATH:
        raise ValueError(f"a unix path has at most {_SUN_PATH - 1} bytes")
    return Address(scheme=Scheme.UNIX, path=path)


def _abstract(name: str) -> Address:
    if (
        not name
        or name.startswith("//")
        or len(name.encode("utf-8", "surrogateescape")) >= _SUN_PATH
    ):
        raise ValueError(f"allowed: unix-abstract:NAME, NAME of 1 to {_SUN_PATH - 1} bytes")
    return Address(scheme=Scheme.ABSTRACT, path=name)


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("allowed after the ?: mode=0660&user=NAME&group=NAME") from None
    if len(dict(pairs)) < len(pairs):
        raise ValueError("an option after the ? is given twice")
    return dict(pairs)
