"""An answer of HTTP/1.1 as it comes in, from somebody who may send anything. Does no I/O."""

from __future__ import annotations

import re

LIMIT = 64 << 10  # bytes of a head, and of a body, that are looked at
_SHOWN = 40  # bytes of what is no HTTP
_LOOKED, _QUOTED = 512, 80  # bytes of a body in which to look for what to quote; characters of that
_BEGIN = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r?\n", re.IGNORECASE)
_LOCATION = re.compile(rb"\nlocation:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,6})[^\r\n]*\r\n")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_LAST_CHUNK = re.compile(rb"(?:^|\n)0+\r\n\r\n$")
_NO_BODY = (101, 204, 304)
_SWITCHING = 101


class NoAnswer(Exception):
    """What came is no whole answer; the text says what it is instead, as "it ..."."""


class Reply:
    """One answer to a GET: take() what comes until it is whole, or end() when no more comes.

    `status` is 0 until the head is there, `came` counts bytes, `location` is where a redirect
    leads. Of a body whose length is told only LIMIT bytes need to come.
    """

    def __init__(self) -> None:
        self.status, self.came, self.location = 0, 0, ""
        self._data, self._begin = bytearray(), b""
        self._missing = 0  # bytes of the body; -1: its end tells
        self._is_chunked = False

    def take(self, data: bytes) -> bool:
        """Take what came; tell whether the answer is whole. Raises NoAnswer."""
        self.came += len(data)
        self._data += data
        while not self.status:
            if not self._take_head():
                return False
        return self._is_whole()

    @property
    def quoted(self) -> str:
        """How the body begins, on one line; of a page its title, "" of one that has none."""
        body = self._begin or bytes(self._data[:LIMIT])
        if self._is_chunked and (chunk := _CHUNK.match(body)):
            body = body[chunk.end() :][: int(chunk[1], 16)]
        text = body[:_LOOKED].decode("utf-8", "replace")
        title = _TITLE.search(text)
        shown = title[1] if title else "" if text.lstrip()[:1] == "<" else text
        return " ".join(shown.split())[:_QUOTED]

    def end(self) -> None:
        """Know that no more comes. Raises NoAnswer if something is missing."""
        if not self.came:
            raise NoAnswer("closed the connection and answered nothing")
        if not self.status or self._missing > 0 or self._is_chunked:
            raise NoAnswer(f"closed the connection in its answer, after {self.came} bytes")

    def _take_head(self) -> bool:
        """Take a head, if one is there as a whole; that of an interim answer is forgotten."""
        begin = bytes(self._data[: len(_BEGIN)])
        line, found, _ = self._data.partition(b"\n")
        status = _STATUS.match(self._data)
        # At once, as a server that greets its clients (SSH, SMTP) would have us wait for more.
        if begin != _BEGIN[: len(begin)] or (found and not status):
            raise NoAnswer(f"answered what is no HTTP/1.1: {bytes(line[:_SHOWN])!r}")
        end = _END_OF_HEAD.search(self._data)
        if (end.end() if end else len(self._data)) > LIMIT:
            raise NoAnswer(f"answered with a head of more than {LIMIT >> 10} KiB")
        if status is None or end is None:
            return False
        head, number = bytes(self._data[: end.end()]), int(status[1])
        del self._data[: end.end()]
        if number >= 200 or number == _SWITCHING:
            self._understand(number, head)
        return bool(self._data) or bool(self.status)

    def _understand(self, status: int, head: bytes) -> None:
        self.status = status
        if location := _LOCATION.search(head):
            self.location = location[1][:200].decode("ascii", "replace")
        length = _LENGTH.search(head)
        if status in _NO_BODY:
            self._missing = 0
        elif _CHUNKED.search(head):
            self._missing, self._is_chunked = -1, True
        else:
            self._missing = min(int(length[1]), LIMIT) if length else -1

    def _is_whole(self) -> bool:
        if self._missing >= 0:
            self._missing = max(0, self._missing - len(self._data))
            self._begin = (self._begin + self._data)[:_LOOKED]
            self._data.clear()
            return not self._missing
        if len(self._data) > LIMIT:
            raise NoAnswer(
                f"answered {self.status} with a body that has no end within {LIMIT >> 10} KiB"
            )
        # No chunk is parsed: the last one is told by its own bytes, which a body that happens to
        # have them as well could only end too soon.
        return self._is_chunked and _LAST_CHUNK.search(self._data[-16:]) is not None
