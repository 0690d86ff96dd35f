"""The end of a WebSocket, so that its client reads why: our half is closed, then the client's.

uvicorn sends the closing frame and closes the socket at once. A client that writes in that instant
gets a broken pipe, and so does a proxy, which then throws the frame away: the client is told
nothing (1006) in the place of 1012.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Open(Protocol):
    """A connection as uvicorn has it, of any protocol."""

    transport: asyncio.Transport
    shutdown: Callable[[], None]  # closes it when it is idle; a WebSocket with 1012, and at once
    connection_lost: Callable[[Exception | None], None]


def part(websocket: Open) -> None:
    """Send 1012, then drop what comes until the client closes; TLS has a goodbye of its own."""
    transport = websocket.transport
    if not transport.can_write_eof() or transport.is_closing():
        websocket.shutdown()
        return
    websocket.transport = _HalfClosing(transport)
    websocket.shutdown()
    transport.set_protocol(_Parted(websocket))


class _HalfClosing(asyncio.Transport):
    """The transport of a WebSocket that parts: it closes our half, and sends nothing after that."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport, self._is_over = transport, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_over:
            self._transport.write(data)

    def close(self) -> None:
        if not self._is_over and not self._transport.is_closing():
            self._transport.write_eof()
        self._is_over = True

    def is_closing(self) -> bool:
        return self._is_over or self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()


class _Parted(asyncio.Protocol):
    """What hears the client of a WebSocket that is closed on our side: nothing but its end."""

    def __init__(self, websocket: Open) -> None:
        self._websocket = websocket

    def connection_lost(self, exc: Exception | None) -> None:
        self._websocket.connection_lost(exc)
