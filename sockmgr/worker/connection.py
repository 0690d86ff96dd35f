"""What the drain must know of a client's connection, and how uvicorn's protocols for HTTP/1.1 tell.

Each class goes before one of uvicorn's (tracking.py) and notes, through the methods that asyncio,
uvicorn and httptools call, when something came, which requests have begun, and whether the
connection is between two of them: then it can go on in another process. Decides nothing.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from sockmgr.worker import tls
from sockmgr.worker.moved import Moved
from sockmgr.worker.proxy_protocol import Proxied

KEY = "sockmgr.connection"  # in the state of a scope, from the protocol to the drain
END = b"\r\n\r\n"  # of a head, and of a body in chunks
HELD = 65536  # bytes of pipelined requests, beyond which no more is read
LEAST = 1.0  # seconds for a request that came when its connection was on its way, or we were paused


class Connection:
    """One HTTP connection. Instants are of CLOCK_MONOTONIC."""

    __slots__ = (
        "begun", "leaving", "more", "moved", "multiplexed", "open", "parser", "proxied",
        "quiet_since", "rested", "started", "stays", "tls", "waits_since",
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
        self.moved: Moved | None = None  # what is known of it, if another worker had it before
        self.stays = ""  # why no other worker can go on with it, whatever comes
        self.rested: Callable[[Http1], None] | None = None  # called when an answer is out

    @property
    def has_more(self) -> bool:
        """Whether more came than the requests that were started: the client pipelines."""
        if self.parser is not None:  # received and not parsed, a public attribute of h11
            return bool(self.parser.trailing_data[0])
        return self.more or self.begun > self.started

    def begin(self) -> None:
        """Start the clocks: who never sends anything is idle from here, or was so before."""
        now = time.monotonic()
        self.quiet_since = min(self.moved.idle_since, now) if self.moved else now
        self.begun = self.started = self.moved.requests if self.moved else 0
        self.waits_since = None if self.started else self.quiet_since

    def note_data(self) -> None:
        """Note that something came: the client is not idle, and may have begun another head."""
        self.quiet_since = time.monotonic()
        if not (self.open or self.multiplexed) and self.waits_since is None:
            self.waits_since = self.quiet_since

    def note_start(self) -> None:
        self.started += 1
        self.open += 1
        self.waits_since = None

    def note_end(self) -> None:
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

    loop: asyncio.AbstractEventLoop
    timeout_keep_alive_task: asyncio.TimerHandle | None

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
        """Start the clocks, and note what TLS tells."""
        self.connection.begin()
        shown = transport.get_extra_info("ssl_object")
        if shown is not None:
            self.connection.stays = "TLS"
            if shown.context.verify_mode:
                self.connection.tls = tls.extension(shown)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.connection.note_data()
        super().data_received(data)

    def give_up(self) -> None:
        """Close a connection on which no request is open."""
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close it, unless something has come that was not read yet (called by uvicorn).

        After a pause of the process, uvloop runs the timers that are due before it looks for what
        has come meanwhile (libuv, "The I/O loop").
        """
        look = select.poll()
        look.register(self.transport.get_extra_info("socket"), select.POLLIN)
        if look.poll(0):
            handler = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(LEAST, handler)
        else:
            super().timeout_keep_alive_handler()  # type: ignore[misc]


class Http1(Tracked):
    """What all protocols for HTTP/1.1 have in common: a connection may be between two requests."""

    needs = frozenset(
        {"cycle", "loop", "timeout_keep_alive", "timeout_keep_alive_handler",
         "timeout_keep_alive_task"}
    )  # fmt: skip
    needs_of_cycle = frozenset({"response_complete"})

    cycle: Any
    timeout_keep_alive: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with the keep-alive limit of a connection that another worker had before."""
        super().connection_made(transport)
        if self.connection.moved and self.connection.started:
            left = self.timeout_keep_alive - (time.monotonic() - self.connection.quiet_since)
            least = min(LEAST, self.timeout_keep_alive)
            self.timeout_keep_alive_task = self.loop.call_later(
                max(left, least), self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Have it looked at (called by uvicorn, when the last of an answer was written)."""
        super().on_response_complete()  # type: ignore[misc]
        if self.connection.rested:
            self.connection.rested(self)

    @property
    def is_between(self) -> bool:
        """Whether nothing of this connection is in this process, neither to be read nor sent."""
        transport = self.transport
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.connection.stays
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
            and self._has_parsed_all
        )

    @property
    def _has_parsed_all(self) -> bool:
        """Whether what came ended with the end of a request."""
        raise NotImplementedError

    def moved(self) -> Moved:
        """Return what another worker is told of it, to go on with it."""
        connection = self.connection
        return Moved(connection.quiet_since, connection.started, connection.proxied)


class HttpTools(Http1):
    """Goes before HttpToolsProtocol."""

    needs = Http1.needs | {"parser"}
    needs_of_cycle = Http1.needs_of_cycle | {"chunked_encoding", "expected_content_length", "send"}

    parser: Any
    _is_within = False  # a request

    def on_headers_complete(self) -> None:
        """Have what has no length end with the connection in HTTP/1.0, which knows no chunks.

        uvicorn sends chunks all the same; RFC 9112, 6.1. A callback of httptools.
        """
        before = self.cycle
        if self.parser.should_upgrade():  # it reads no request after that
            self.connection.stays = "Upgrade"
        super().on_headers_complete()  # type: ignore[misc]
        if self.cycle is not before and self.cycle.scope["http_version"] == "1.0":
            self.cycle.send = _without_chunks(self.cycle)

    def on_message_begin(self) -> None:
        """Count the request (a callback of httptools)."""
        self.connection.begun += 1
        self._is_within = True
        super().on_message_begin()  # type: ignore[misc]

    def on_message_complete(self) -> None:
        """Note the end of the request (a callback of httptools)."""
        self._is_within = False
        super().on_message_complete()  # type: ignore[misc]

    @property
    def _has_parsed_all(self) -> bool:
        return not self._is_within


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


class H11(Http1):
    """Goes before H11Protocol."""

    needs = Http1.needs | {"conn"}

    conn: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.parser = self.conn
        super().connection_made(transport)

    @property
    def _has_parsed_all(self) -> bool:
        from h11 import IDLE  # noqa: PLC0415 - there if this protocol is

        is_idle = self.conn.our_state is IDLE and self.conn.their_state is IDLE
        return is_idle and self.conn.trailing_data == (b"", False)


class Zttp(Http1):
    """Goes before ZttpProtocol.

    zttp does not tell whether it has got more than it has parsed. So it gets one request, and the
    next when that is answered; it says itself where a request ends, if what it gets ends wherever
    one may.
    """

    needs = Http1.needs | {"connections", "flow", "headers", "on_response_complete"}
    needs_of_cycle = Http1.needs_of_cycle | {"more_body"}

    connections: set[object]
    flow: Any
    headers: list[tuple[bytes, bytes]]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._came = b""
        self._given = 0  # so much of it
        self._unended = 0  # from here on no END was seen
        self._length = 0  # of the body, what is still to come
        self._is_within = False  # the head of a request

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
        super().on_response_complete()
        self._give()

    def _give(self) -> None:
        while self._has_more and self._is_ready:
            cycle = self.cycle
            is_answered = cycle is None or (cycle.response_complete and not cycle.more_body)
            super().data_received(self._piece())
            self._is_within = is_answered and self.cycle is cycle
            if self.cycle is not cycle:
                length = dict(self.headers).get(b"content-length", b"")
                self._length = int(length) if length.isdigit() else 0
        self.connection.more = self._has_more

    @property
    def _has_parsed_all(self) -> bool:
        is_whole = self.cycle is None or not self.cycle.more_body
        return is_whole and not self._is_within and not self._has_more

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
