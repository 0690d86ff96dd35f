"""What the drain must know of a client's connection, and how uvicorn's protocols for HTTP/1.1 tell.

Each class goes before one of uvicorn's (tracking.py) and notes, through the methods that asyncio,
uvicorn and httptools call, when something came and which requests have begun. Decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from sockmgr.worker import tls
from sockmgr.worker.proxy_protocol import Proxied

KEY = "sockmgr.connection"  # in the state of a scope, from the protocol to the drain
END = b"\r\n\r\n"  # of a head, and of a body in chunks
HELD = 65536  # bytes of pipelined requests, beyond which no more is read


class Connection:
    """One HTTP connection. Instants are of CLOCK_MONOTONIC."""

    __slots__ = (
        "begun", "leaving", "more", "multiplexed", "open", "parser", "proxied", "quiet_since",
        "started", "tls", "waits_since",
    )  # fmt: skip

    def __init__(self) -> None:
        self.quiet_since = time.monotonic()  # the last byte came, or the last answer ended
        self.begun = 0  # requests of which something came (httptools)
        self.started = 0  # requests that the application got
        self.open = 0  # requests that it has not finished
        self.parser: Any = None  # h11's Connection, where that parses
        self.leaving = False  # the drain wants it to end (for HTTP/2, which says so later)
        self.more = False  # more came than the request that is being answered (zttp)
        self.multiplexed = False  # HTTP/2, whose streams have no head that others wait behind
        self.waits_since: float | None = self.quiet_since  # for the head of a request
        self.proxied: Proxied | None = None  # what a proxy said before the first byte
        self.tls: dict[str, Any] = {}  # the extension of ASGI, if clients may show a certificate

    @property
    def has_more(self) -> bool:
        """Whether more came than the requests that were started: the client pipelines."""
        if self.parser is not None:  # received and not parsed, a public attribute of h11
            return bool(self.parser.trailing_data[0])
        return self.more or self.begun > self.started

    def note_data(self) -> None:
        """Note that something came: the client is not idle, and may have begun another head."""
        self.quiet_since = time.monotonic()
        if not (self.open or self.multiplexed) and self.waits_since is None:
            self.waits_since = self.quiet_since

    def note_start(self) -> None:
        """Note that the application has got a request."""
        self.started += 1
        self.open += 1
        self.waits_since = None

    def note_end(self) -> None:
        """Note that the application is done with a request."""
        self.open -= 1
        self.quiet_since = time.monotonic()
        if self.has_more and not (self.open or self.multiplexed):
            self.waits_since = self.quiet_since

    def is_late(self, limit: float) -> bool:
        """Whether the head of a request is not complete after `limit` seconds."""
        return self.waits_since is not None and time.monotonic() - self.waits_since >= limit


class Tracked(asyncio.Protocol):
    """Goes before uvicorn's protocol in the order of classes. Owns a Connection."""

    needs: ClassVar[frozenset[str]] = frozenset()  # what it uses of uvicorn's protocol
    needs_of_cycle: ClassVar[frozenset[str]] = frozenset()  # and of what answers one request

    def __init__(
        self,
        config: object,
        server_state: object,
        app_state: Mapping[str, Any],
        _loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connection = Connection()
        self.transport: asyncio.Transport
        super().__init__(
            config=config,
            server_state=server_state,
            # Each request's scope gets a copy, so this is how the application's side finds us.
            app_state={**app_state, KEY: self.connection},
            _loop=_loop,
        )  # type: ignore[call-arg]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clocks: a client that never sends anything is idle from here."""
        self.connection.quiet_since = self.connection.waits_since = time.monotonic()
        shown = transport.get_extra_info("ssl_object")
        if shown is not None and shown.context.verify_mode:
            self.connection.tls = tls.extension(shown)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Note that the client is not idle."""
        self.connection.note_data()
        super().data_received(data)

    def give_up(self) -> None:
        """Close a connection on which no request is open."""
        self.transport.close()


class HttpTools(Tracked):
    """Goes before HttpToolsProtocol."""

    needs_of_cycle = frozenset({"chunked_encoding", "expected_content_length", "send"})

    cycle: Any

    def on_headers_complete(self) -> None:
        """Have what has no length end with the connection in HTTP/1.0, which knows no chunks.

        uvicorn sends chunks all the same; RFC 9112, 6.1. A callback of httptools.
        """
        before = self.cycle
        super().on_headers_complete()  # type: ignore[misc]
        if self.cycle is not before and self.cycle.scope["http_version"] == "1.0":
            self.cycle.send = _without_chunks(self.cycle)

    def on_message_begin(self) -> None:
        """Count the request (a callback of httptools)."""
        self.connection.begun += 1
        super().on_message_begin()  # type: ignore[misc]


def _without_chunks(cycle: Any) -> Callable[[Any], Awaitable[None]]:
    send, is_framed = cycle.send, False

    async def unframed(message: Any) -> None:
        nonlocal is_framed
        if message["type"] == "http.response.start":
            is_framed = any(
                name.lower() == b"content-length" for name, _ in message.get("headers", ())
            )
        if not is_framed:
            cycle.chunked_encoding = False
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return unframed


class H11(Tracked):
    """Goes before H11Protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note its parser."""
        self.connection.parser = self.conn  # type: ignore[attr-defined]
        super().connection_made(transport)


class Zttp(Tracked):
    """Goes before ZttpProtocol.

    zttp does not tell whether it has got more than it has parsed. So it gets one request, and the
    next when that is answered; it says itself where a request ends, if what it gets ends wherever
    one may.
    """

    needs = frozenset({"connections", "cycle", "flow", "headers", "on_response_complete"})
    needs_of_cycle = frozenset({"more_body", "response_complete"})

    connections: set[object]
    cycle: Any
    flow: Any
    headers: list[tuple[bytes, bytes]]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._came = b""
        self._given = 0  # so much of it
        self._unended = 0  # from here on no END was seen
        self._length = 0  # of the body, what is still to come

    def data_received(self, data: bytes) -> None:
        """Give zttp what belongs to this request."""
        keep = max(self._unended, self._given - len(END) + 1)
        self._came = self._came[keep:] + data
        self._given, self._unended = self._given - keep, 0
        self._give()
        if len(self._came) - self._given > HELD:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        """Give it the next one (called by uvicorn)."""
        super().on_response_complete()  # type: ignore[misc]
        self._give()

    def _give(self) -> None:
        while self._has_more and self._is_ready:
            cycle = self.cycle
            super().data_received(self._piece())
            if self.cycle is not cycle:
                length = dict(self.headers).get(b"content-length", b"")
                self._length = int(length) if length.isdigit() else 0
        self.connection.more = self._has_more

    @property
    def _has_more(self) -> bool:
        return self._given < len(self._came)

    @property
    def _is_ready(self) -> bool:
        if self not in self.connections or self.transport.is_closing():  # upgraded, or given up
            return False
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete

    def _piece(self) -> bytes:
        began = self._given
        if self._length:
            self._given = self._unended = min(began + self._length, len(self._came))
            self._length -= self._given - began
        elif (end := self._came.find(END, max(self._unended, began - len(END) + 1))) >= 0:
            self._given = self._unended = end + len(END)
        else:
            self._given = len(self._came)
        return self._came[began : self._given]
