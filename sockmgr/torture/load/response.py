"""One HTTP/1.1 response, read piece by piece. Says when it is complete; knows no sockets."""

from __future__ import annotations

import json
from collections.abc import Callable

JSON_END = b"}"


class Malformed(ValueError):
    """What came is not HTTP, or not the answer that the request asked for."""


# Of a body, which must end with the second: the pid and the version that it names.
Reader = Callable[[bytes, bytes], tuple[int, str]]


def read_own(body: bytes, must_end_with: bytes) -> tuple[int, str]:
    """Read `{"pid": …, "version": …}` from the first line, and check how the body ends."""
    _check_end(body, must_end_with)
    try:
        said = json.loads(body.split(b"\n", 1)[0])
        return int(said["pid"]), str(said["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"the body says no pid and version: {body[:80]!r}") from error


def reader_of_any(expected: bytes) -> Reader:
    """Return a reader of any body that holds `expected`; what it says of itself is read if it is
    JSON with the keys `pid` and `version`."""

    def read(body: bytes, must_end_with: bytes) -> tuple[int, str]:
        if expected not in body:
            raise Malformed(f"the body does not hold {expected!r}: {body[:80]!r}")
        try:
            return read_own(body, b"")
        except Malformed:
            return 0, ""
        finally:
            if must_end_with != JSON_END:
                _check_end(body, must_end_with)

    return read


def _check_end(body: bytes, must_end_with: bytes) -> None:
    if not body.rstrip().endswith(must_end_with):
        raise Malformed(f"the body does not end with {must_end_with!r}")


class Response:
    """Fed with bytes until `complete`; `closed()` says what the end of the connection means."""

    def __init__(self) -> None:
        self.status = 0
        self.started = False
        self.complete = False
        self.keep_alive = False
        self.body = b""
        self._raw = bytearray()
        self._length: int | None = None  # of the body; None: chunked, or up to the end
        self._chunked = False
        self._in_body = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raise Malformed if they cannot belong to a response."""
        self.started = True
        self._raw += data
        while not self._in_body and self._read_head():
            pass
        if self._in_body:
            self._read_rest()

    def closed(self) -> bool:
        """Return whether the end of the connection completes this response."""
        if self._in_body and self._length is None and not self._chunked:
            self.body, self.complete = bytes(self._raw), True
        return self.complete

    def _read_head(self) -> bool:
        """Take one head off the front; False when more bytes are needed."""
        head, blank, rest = bytes(self._raw).partition(b"\r\n\r\n")
        if not blank:
            if len(self._raw) > 65536 or not b"HTTP/".startswith(self._raw[:5]):
                raise Malformed(f"not HTTP: {bytes(self._raw[:80])!r}")
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest_of_line = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest_of_line[:3].isdigit():
            raise Malformed(f"not a status line: {first[:80]!r}")
        self._raw = bytearray(rest)
        self.status = int(rest_of_line[:3])
        if self.status >= 200:  # what is below is interim: another head follows
            pairs = (line.partition(":") for line in lines)
            self._read_headers(version, {k.strip().lower(): v.strip() for k, _, v in pairs})
        return True

    def _read_headers(self, version: str, headers: dict[str, str]) -> None:
        self._in_body = True
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked and "content-length" in headers:
            self._length = int(headers["content-length"])
        framed = self._chunked or self._length is not None
        connection = headers.get("connection", "").lower()
        kept = version != "HTTP/1.0" if connection != "keep-alive" else True
        self.keep_alive = framed and kept and connection != "close"

    def _read_rest(self) -> None:
        if self._chunked:
            self._read_chunks()
        elif self._length is not None and len(self._raw) >= self._length:
            if len(self._raw) > self._length:
                more = len(self._raw) - self._length
                raise Malformed(f"{more} bytes more than Content-Length says")
            self.body, self.complete = bytes(self._raw), True

    def _read_chunks(self) -> None:
        while not self.complete:
            size_line, newline, rest = bytes(self._raw).partition(b"\r\n")
            if not newline:
                return
            try:
                size = int(size_line.split(b";", 1)[0], 16)
            except ValueError as error:
                raise Malformed(f"not a chunk size: {size_line[:40]!r}") from error
            if len(rest) < size + 2:
                return
            if size == 0:
                self._raw = bytearray(rest[2:])
                self.complete = True
            else:
                self.body += rest[:size]
                self._raw = bytearray(rest[size + 2 :])
