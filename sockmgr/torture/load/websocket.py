"""One WebSocket as a client has it, RFC 6455: what is sent, and what the server's frames mean."""

from __future__ import annotations

import struct

from sockmgr.torture.load.response import Malformed, Response

SWITCHING_PROTOCOLS = 101
GOING_AWAY, RESTARTS = 1001, 1012  # by which a server asks its client to come back
_TEXT, _CLOSE = 1, 8  # opcodes
_FINAL, _MASKED = 0x80, 0x80
_NORMAL = struct.pack("!H", 1000)
# The headers of a client's request; the key is 16 bytes that nobody has to guess.
REQUEST = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "c29ja21nciB0b3J0dXJlIQ==",
}  # fmt: skip


def pieces(path: str, messages: int) -> list[bytes]:
    """Return what a client sends one after the other: its request, so many messages, its close."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in REQUEST.items())
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    return [head.encode(), *[_frame(_TEXT, b"who?")] * messages, _frame(_CLOSE, _NORMAL)]


def _frame(opcode: int, payload: bytes) -> bytes:
    # Masked with zeros, which leaves the payload as it is: a client has to mask.
    return bytes([_FINAL | opcode, _MASKED | len(payload)]) + bytes(4) + payload


class Session(Response):
    """Fed with what the server sends until `complete`; `body` is the last message.

    Complete when the server has closed the WebSocket as it should: after every answer, or because
    it asks the client to come back.
    """

    def __init__(self, messages: int) -> None:
        super().__init__()
        self._unanswered = messages

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raise Malformed if the server closes before every answer."""
        self.started = True
        self._raw += data
        if not self.status:
            head, end, rest = bytes(self._raw).partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head[9:12]) if head[9:12].isdigit() else 0
            self._raw = bytearray(rest)
            self.complete = self.status != SWITCHING_PROTOCOLS
        while not self.complete and (frame := self._next_frame()):
            self._take(*frame)

    def closed(self) -> bool:
        """Return False: a WebSocket ends by a frame, and not with its connection."""
        return False

    def _next_frame(self) -> tuple[int, bytes] | None:
        if len(self._raw) < 2:
            return None
        start, size = 2, self._raw[1]
        if size == 126:
            start, size = 4, int.from_bytes(self._raw[2:4], "big")
        elif size > 126:
            raise Malformed("a frame that is masked, or longer than any that was asked for")
        if len(self._raw) < start + size:
            return None
        opcode, payload = self._raw[0] & 0x0F, bytes(self._raw[start : start + size])
        del self._raw[: start + size]
        return opcode, payload

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self.body = payload
            self._unanswered -= 1
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big")
            if self._unanswered and code not in {GOING_AWAY, RESTARTS}:
                raise Malformed(f"closed with {code}, {self._unanswered} messages unanswered")
            self.complete = True
