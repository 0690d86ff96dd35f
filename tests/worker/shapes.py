"""Shapes of requests and answers: what a client sends, and what it sees come back."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.http2 import Http2Client

PATIENCE = 30.0
# Of the connection, or said by each server in its own way.
FRAMING = ("connection", "date", "keep-alive", "server", "transfer-encoding")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One exchange, or several on one connection.

    `differs` are the accepted differences to the oracle: what is seen here, and why; None stands
    for what depends on the parser.
    """

    name: str
    sends: bytes
    method: str = "GET"
    answers: int = 1
    way: str = "whole"  # how the client behaves: see talk()
    unix: bool = False
    tracebacks: int = 0  # in the log
    differs: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


@dataclass
class Seen:
    """One answer, as the client saw it."""

    status: int = 0
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    interim: list[int] = field(default_factory=list)

    def comparable(self, oracle: Seen) -> dict[str, Any]:
        """Return what must be the same as at `oracle`, where a body may be framed otherwise."""
        left_out = (
            {*FRAMING} if "content-length" in oracle.headers else {*FRAMING, "content-length"}
        )
        headers = {name: said for name, said in self.headers.items() if name not in left_out}
        return vars(self) | {"headers": headers}


def request(
    path: str, *fields: str, method: str = "GET", body: bytes | None = None, version: str = "1.1"
) -> bytes:
    """Return a request; a body gets its length, unless a field says something of it."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    if body is not None and not any("Transfer" in each or "Length" in each for each in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return a body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def talk(address: Any, shape: Shape) -> list[Seen]:
    """Be the client of `shape`; return the answers."""
    kind = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    with contextlib.closing(socket.socket(kind)) as sock:
        sock.settimeout(PATIENCE)
        if shape.way == "slow":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(address)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read all
            if shape.way == "cut":
                head, end, body = shape.sends.partition(b"\r\n\r\n")
                sock.sendall(head + end)
                assert b" 100 " in sock.recv(100)  # so the application reads
                sock.sendall(body)
                return []
            if shape.way == "bytewise":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for at in range(len(shape.sends)):
                    sock.sendall(shape.sends[at : at + 1])
            else:
                sock.sendall(shape.sends)
        reader = _Reader(sock, piece=2000 if shape.way == "slow" else 65536)
        if shape.way in ("leaves", "resets"):
            while b"0123456789" not in reader.data and reader.more():
                pass
            if shape.way == "resets":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return []
        return [reader.answer(shape.method) for _ in range(shape.answers)]


def talk_http2(address: tuple[str, int], shape: Shape) -> list[Seen]:
    """Be the same client, but in HTTP/2, where no field says anything of the body."""
    head, _, body = shape.sends.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    split = (line.partition(":") for line in lines)
    fields = [(name.lower(), value.strip()) for name, _, value in split]
    if ("transfer-encoding", "chunked") in fields:
        reader, whole = _Reader(None, 0), Seen()
        reader.data = body
        reader.chunks(whole)
        body = whole.body
    fields = [field for field in fields if field[0] not in (*FRAMING, "host", "content-length")]
    with contextlib.closing(Http2Client(address)) as client:
        method, path, _ = first.split(" ")
        stream = client.request(method, path, *fields, end=not body)
        for at in range(0, len(body), 16384):
            while client.window(stream) < 16384:
                client.read()
            part = body[at : at + 16384]
            client.body(stream, part, end=at + len(part) == len(body))
        answer = client.answers[stream]
        while not (answer.ended or answer.reset or client.closed):
            client.read()
        seen = Seen(int(answer.status or 0), {}, answer.body, answer.ended)
        for name, value in answer.headers[1:]:
            seen.headers.setdefault(name, []).append(value)
        return [seen]


class _Reader:
    def __init__(self, sock: Any, piece: int) -> None:
        self._sock, self._piece = sock, piece
        self.data = b""

    def more(self) -> bool:
        """Read; False at the end of the connection."""
        try:
            came = self._sock.recv(self._piece)
        except ConnectionResetError:
            return False
        if self._piece < 65536:
            time.sleep(0.0002)  # a slow client
        self.data += came
        return bool(came)

    def answer(self, method: str) -> Seen:
        seen = Seen()
        while seen.status < 200:
            while b"\r\n\r\n" not in self.data:
                if not self.more():
                    return seen
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            seen.status = int(first.split(" ")[1])
            if seen.status < 200:
                seen.interim.append(seen.status)
        for name, _, value in (line.partition(":") for line in lines):
            seen.headers.setdefault(name.lower(), []).append(value.strip())
        if method == "HEAD" or seen.status in (204, 304):
            seen.whole = True
        elif "chunked" in seen.headers.get("transfer-encoding", ()):
            self.chunks(seen)
        elif length := seen.headers.get("content-length"):
            seen.whole = self._fill(int(length[-1]))
            seen.body, self.data = self.data[: int(length[-1])], self.data[int(length[-1]) :]
        else:
            while self.more():
                pass
            seen.body, self.data, seen.whole = self.data, b"", True
        return seen

    def chunks(self, seen: Seen) -> None:
        while True:
            while b"\r\n" not in self.data:
                if not self.more():
                    return
            line, _, self.data = self.data.partition(b"\r\n")
            size = int(line, 16)
            if not self._fill(size + 2):
                seen.body += self.data
                return
            seen.body += self.data[:size]
            self.data = self.data[size + 2 :]
            if not size:
                seen.whole = True
                return

    def _fill(self, size: int) -> bool:
        while len(self.data) < size:
            if not self.more():
                return False
        return True


def assert_same(shape: Shape, seen: Sequence[Seen], oracle: Sequence[Seen]) -> None:
    """Fail if a client can tell one from the other by more than `shape` accepts."""
    for here, there in zip(seen, oracle, strict=True):
        found, wanted = here.comparable(there), there.comparable(there)
        for aspect, (value, why) in shape.differs.items():
            assert why
            if aspect in wanted:
                wanted[aspect] = found[aspect] if value is None else value
        assert found == wanted
