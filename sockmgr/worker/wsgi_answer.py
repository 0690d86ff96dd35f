"""Turns the answer of a WSGI application into messages of ASGI, and checks it. Does no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeAlias

from sockmgr.worker.figures import Message

ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)

_STATUS = re.compile(r"[2-5][0-9]{2}(?: [ \t\x21-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # token; RFC 9110, 5.6.2
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")  # RFC 9110, 5.5
# The server's own headers: those about one connection rather than the answer, and those about the
# server itself. They are dropped when the application sets them.
_OF_SERVER = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"trailers", b"transfer-encoding", b"upgrade",
    b"date", b"server",
})  # fmt: skip
_LENGTH = b"content-length"
_END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class Answer:
    """The answer to one request. The caller sends the messages in the order in which they come."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._length: int | None = None  # Content-Length, if the application sets it
        self._given = 0  # bytes of the body in the messages so far
        self._begun = False  # the first message has been returned, so the head is fixed
        self.ended = False  # the last message has been returned
        self.too_long = False  # the application gave more than Content-Length allows

    def start(
        self,
        status: Any,
        headers: Iterable[tuple[Any, Any]],
        exc_info: ExcInfo | None = None,
    ) -> None:
        """Take status and headers, as start_response of PEP 3333; raise if they cannot be sent."""
        if exc_info is not None and exc_info[1] is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # breaks a cycle: its traceback refers to this frame
        elif self._head is not None:
            raise RuntimeError("start_response was called twice, without exc_info")
        if not isinstance(status, str):
            raise TypeError(f"the status is not a str: {status!r}")
        if not _STATUS.fullmatch(status):
            raise ValueError(f"{status!r} is not the status of an answer")
        code = int(status[:3])
        fields = [field for field in map(_checked, headers) if field[0] not in _OF_SERVER]
        self._length = _length(value for name, value in fields if name == _LENGTH)
        # A 204 must have no Content-Length (RFC 9110, 8.6), and uvicorn accepts none with a 304.
        if code in (204, 304):
            fields = [field for field in fields if field[0] != _LENGTH]
        self._head = code, fields

    def more(self, data: bytes) -> list[Message]:
        """Return the messages to send now, for a part of the body."""
        if not isinstance(data, bytes):
            raise TypeError(f"a part of the body is not bytes, but {type(data).__name__}")
        return self._messages(data, last=False) if data else []

    def rest(self, data: bytes = b"") -> list[Message]:
        """Return the messages to send for the last part of the body, which `data` may hold."""
        if self.ended:
            self.too_long |= bool(data)
            return []
        return self._messages(data, last=True)

    @property
    def is_over(self) -> bool:
        """Whether the application need not go on, because the rest of the body is dropped."""
        return self.ended and (self._omits_body or self.too_long)

    @property
    def missing(self) -> int:
        """How many bytes of the body are still to come by the application's Content-Length."""
        return 0 if self._omits_body or self._length is None else self._length - self._given

    # Private

    def _messages(self, data: bytes, *, last: bool) -> list[Message]:
        if self._head is None:
            raise RuntimeError("the application has not called start_response")
        if self.ended:
            self.too_long = not self._omits_body
            return []
        if last and not self._begun and self._length is None and not self._omits_body:
            self._length = len(data)
            self._head[1].append((_LENGTH, str(len(data)).encode()))
        code, headers = self._head
        start: Message = {"type": "http.response.start", "status": code, "headers": headers}
        beginning, self._begun = [] if self._begun else [start], True
        return [*beginning, *self._body(data, last=last)]

    def _body(self, data: bytes, *, last: bool) -> list[Message]:
        if self._omits_body:
            self.ended = True
            return [_END]
        if self._length is not None:
            self.too_long = len(data) > self.missing
            data = data[: self.missing]
        self._given += len(data)
        self.ended = self.missing == 0 if self._length is not None else last
        if not (data or self.ended):
            return []
        return [{"type": "http.response.body", "body": data, "more_body": not self.ended}]

    @property
    def _omits_body(self) -> bool:
        return self._method == "HEAD" or (self._head is not None and self._head[0] in (204, 304))


def _checked(header: tuple[Any, Any]) -> tuple[bytes, bytes]:
    """Return a header in the form in which it is sent; raise if it is none."""
    name, value = header
    if not (isinstance(name, str) and isinstance(value, str)):
        raise TypeError(f"a header is not of two str: {header!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    if not _VALUE.fullmatch(value):  # the value may be a secret, so the error does not show it
        raise ValueError(f"the value of the header {name} has characters that it cannot have")
    return name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1")


def _length(said: Iterable[bytes]) -> int | None:
    found = list(said)
    if not found:
        return None
    if len(found) > 1 or not found[0].isdigit():
        raise ValueError(f"{b', '.join(found)!r} is not a Content-Length")
    return int(found[0])
