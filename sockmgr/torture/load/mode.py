"""The kinds of load, and where it may go: this machine only, bounded in number and time."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

MAX_RATE = 5_000.0
MAX_CONNECTIONS = 1_000
MAX_SECONDS = 600.0


class Kind(StrEnum):
    """How a mode sends its requests."""

    SHORT = "short"  # a new connection each
    KA = "ka"  # a pool of kept connections
    KAT = "kat"  # kept connections, in a closed loop unless it has a rate
    SLOW = "slow"  # a new connection each, answers after 1 to 3 s
    STREAM = "stream"  # a new connection each, chunks that must finish with END
    HALF = "half"  # a new connection each, the request comes in four pieces
    UPLOAD = "upload"  # a new connection each, a body of 64 kB in eight pieces
    WEBSOCKET = "websocket"  # a new one each, five messages that must be answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One kind of load: `rate` requests a second, due whatever became of those before (an open
    loop); or, where that is 0, `conns` connections at a time, each in a closed loop.
    """

    kind: Kind
    path: str = "/"
    rate: float = 0.0
    conns: int = 2
    think: float = 0.0  # closed loop: the pause between an answer and the next request
    s: float = 0.0  # how long the answer, or the sending, takes; 0 for slow: 1 to 3 s at random
    timeout: float = 10.0
    connect_timeout: float = 3.0

    @property
    def open_loop(self) -> bool:
        return self.rate > 0

    @property
    def keeps(self) -> bool:
        return self.kind in {Kind.KA, Kind.KAT}


DEFAULTS = {
    Kind.SHORT: Mode(kind=Kind.SHORT, rate=100),
    Kind.KA: Mode(kind=Kind.KA, rate=100, conns=16),
    Kind.KAT: Mode(kind=Kind.KAT, conns=16, think=0.01),
    Kind.SLOW: Mode(kind=Kind.SLOW, path="/slow", timeout=15.0),
    Kind.STREAM: Mode(kind=Kind.STREAM, path="/stream", s=4.0, timeout=20.0),
    Kind.HALF: Mode(kind=Kind.HALF, rate=10, s=0.6),
    Kind.UPLOAD: Mode(kind=Kind.UPLOAD, path="/upload", rate=5, s=0.7),
    Kind.WEBSOCKET: Mode(kind=Kind.WEBSOCKET, path="/ws", rate=5, s=1.5),
}

OPTIONS: dict[str, Any] = {
    each.name: type(each.default) for each in fields(Mode) if each.name != "kind"
}


def parse_mode(text: str) -> Mode:
    """Read `short:rate=100,timeout=5`."""
    name, _, options = text.partition(":")
    if name not in set(Kind):
        raise ValueError(f"no mode {name!r}; there are {', '.join(Kind)}")
    mode = DEFAULTS[Kind(name)]
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in OPTIONS:
            raise ValueError(f"mode {name} has no option {key!r}; there are {', '.join(OPTIONS)}")
        changes: dict[str, Any] = {key: OPTIONS[key](value)}
        mode = replace(mode, **changes)
    if not (0 <= mode.rate <= MAX_RATE and 0 < mode.conns <= MAX_CONNECTIONS):
        raise ValueError(f"{text}: at most {MAX_RATE:g} requests/s and {MAX_CONNECTIONS} conns")
    return mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server on this machine."""

    family: socket.AddressFamily
    address: tuple[str, int] | str

    @classmethod
    def at_url(cls, url: str) -> Target:
        """Take `http://127.0.0.1:8000`; refuse whatever is not loopback."""
        parts = urlsplit(url)
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        if parts.scheme != "http" or parts.port is None:
            raise ValueError(f"{url}: want http://HOST:PORT")
        try:
            address = ipaddress.ip_address(host)
        except ValueError as error:
            raise ValueError(f"{url}: want an address, not a name") from error
        if not address.is_loopback:
            raise ValueError(f"{url}: this judge only ever loads 127.0.0.0/8 and ::1")
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return cls(family=family, address=(host, parts.port))

    @classmethod
    def at_path(cls, path: str) -> Target:
        """Take the path of a unix socket."""
        return cls(family=socket.AF_UNIX, address=path)
