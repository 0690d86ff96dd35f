"""The kinds of load, and the server that it goes to."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum

MAX_CONNECTIONS = 1_000


class Kind(StrEnum):
    """How a mode sends its requests."""

    SHORT = "short"  # a new connection each
    KA = "ka"  # a pool of kept connections
    KAT = "kat"  # kept connections, in a closed loop unless it has a rate
    SLOW = "slow"  # a new connection each, answers that take a while
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
    s: float = 0.0  # how long the answer, or the sending, takes
    timeout: float = 10.0
    connect_timeout: float = 3.0

    @property
    def open_loop(self) -> bool:
        return self.rate > 0

    @property
    def keeps(self) -> bool:
        return self.kind in {Kind.KA, Kind.KAT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server on this machine."""

    family: socket.AddressFamily
    address: tuple[str, int] | str
