"""HTTP/2 as uvicorn speaks it by zttp, with an end of the connection that loses no request.

By RFC 9113, 6.8, a GOAWAY with the highest possible stream asks the client to open no more streams,
while the requests that cross it are still answered. After the last answer comes a PING. When the
client has answered that, it has read the GOAWAY and all answers, and all that it had sent before
has arrived. Then a last GOAWAY names the last stream, and the connection is closed. Does not decide
when a connection is to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from sockmgr.worker.connection import Tracked

NO_STREAM = 2**31 - 1
HIGH_WATER = 65_536  # bytes of an answer that may wait for the client
MOST_BODY = 1 << 20  # bytes of a request's body that are read while its answer waits
PING = b"\0\0\x08\x06\0\0\0\0\0"  # the head of a PING frame; RFC 9113, 6.7
NEEDED = ("close", "data_to_send", "has_pending_send")  # of zttp.H2Connection


class Http2(Tracked):
    """Our part of an HTTP/2 connection: the class before uvicorn's ZttpH2Protocol in the MRO."""

    needs = frozenset(
        {"_close_connection", "conn", "cycles", "events", "flush", "handle_request", "loop",
         "timeout_keep_alive_handler", "timeout_keep_alive_task"}
    )  # fmt: skip
    needs_of_cycle = frozenset(
        {"disconnected", "flow", "message_event", "more_body", "response_complete", "stream"}
    )

    conn: Any
    cycles: dict[int, Any]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.conn = _Outgoing(self.conn, self)
        self.connection.more = True  # HTTP/2 has no `Connection: close`; RFC 9113, 8.2.2
        self.connection.multiplexed = True
        self.connection.stays = "HTTP/2"
        self.told = False  # a GOAWAY has been sent
        self.asked = self.heard = False  # a PING was sent after the last answer, and answered
        self._asks = 0  # how many PINGs have been sent
        self._used = False
        self._waiting: set[asyncio.Event] = set()  # of answers that wait for the client's window

    @property
    def busy(self) -> bool:
        """Whether an answer is not finished, or waits for the client's window."""
        # uvicorn counts an answer as complete once zttp has it, though zttp may hold some of it.
        return any(not cycle.response_complete for cycle in self.cycles.values()) or bool(
            self.conn.has_pending_send()
        )

    @property
    def is_time_to_tell(self) -> bool:
        """Whether to send a GOAWAY with the next data, which ends the last answer."""
        return self.connection.leaving and self._used and not (self.told or self.busy)

    def tell(self) -> None:
        """Send a GOAWAY that asks the client to open no more streams."""
        self.note_told()
        self.flush()  # type: ignore[attr-defined]

    def note_told(self) -> None:
        """Have zttp send that GOAWAY with the next data."""
        self.told = True
        self.conn.close(0, NO_STREAM)

    def ask(self) -> None:
        """Send a PING: when the client answers it, it has read everything before."""
        self.asked = True
        self._asks += 1
        # Written here, because zttp cannot send a PING.
        self.transport.write(PING + self._asks.to_bytes(8, "big"))

    def finish(self) -> None:
        """Send the last GOAWAY, which names the last stream, and close."""
        self._close_connection()

    give_up = finish

    # --- Called by asyncio ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Wake the answers that wait, since the client may have enlarged its window."""
        super().data_received(data)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the answers that wait, since the client is gone."""
        super().connection_lost(exc)
        self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            waiting.set()

    # --- Called by uvicorn ---------------------------------------------------------------------

    def events(self) -> Iterator[Any]:
        """Yield the events of zttp, and note the answer to the last PING."""
        for event in super().events():  # type: ignore[misc]
            if self.asked and getattr(event, "ack", False):  # only a zttp.Ping has `ack`
                self.heard = event.data == self._asks.to_bytes(8, "big")
            yield event

    def handle_request(self, event: Any) -> None:
        """Note that another answer is to come, and whether the request is complete."""
        self._used = True
        self.asked = self.heard = False
        super().handle_request(event)  # type: ignore[misc]
        if cycle := self.cycles.get(event.stream_id):
            cycle.flow = _Flow(cycle, self.cycles, self._waiting)
        # Since zttp 0.0.22 no other event marks the end of a request without a body, and uvicorn
        # 0.54 waits for one: an application that reads the body would wait for ever.
        if event.end_stream and (cycle := self.cycles.get(event.stream_id)):
            cycle.more_body = False
            cycle.message_event.set()

    def _close_connection(self) -> None:
        self.told = True  # no other GOAWAY may follow the one that names the last stream
        super()._close_connection()  # type: ignore[misc]


class _Flow:
    """The flow control that uvicorn asks before it sends more of an answer.

    uvicorn's own looks only at the connection. But zttp holds whatever exceeds the client's window
    of a stream, so without this class zttp would hold all of an answer that never ends.
    """

    def __init__(self, cycle: Any, cycles: Mapping[int, Any], waiting: set[asyncio.Event]) -> None:
        self._cycle, self._connection, self._waiting = cycle, cycle.flow, waiting
        self._cycles = cycles

    @property
    def write_paused(self) -> bool:
        """Whether uvicorn is to wait in drain() before it sends more."""
        return self._is_full or bool(self._connection.write_paused)

    async def drain(self) -> None:
        """Wait until the client's window has room, or the client is gone."""
        came = asyncio.Event()
        self._waiting.add(came)
        try:
            while self._is_full and not self._cycle.disconnected:
                # uvicorn stops reading while an application leaves a body in its buffer. The
                # client's WINDOW_UPDATE comes after that body, and would never be read.
                if all(len(each.body) < MOST_BODY for each in self._cycles.values()):
                    self._connection.resume_reading()
                await came.wait()
                came.clear()
        finally:
            self._waiting.discard(came)
        await self._connection.drain()

    @property
    def _is_full(self) -> bool:
        return (self._cycle.stream.pending_bytes or 0) > HIGH_WATER  # None: the stream has ended


class _Outgoing:
    """zttp's connection, which sends the GOAWAY together with the end of the last answer.

    If the GOAWAY came later, a client that reads only while it waits for an answer, such as httpx,
    would read it only after it has sent another request, and then fail (python-hyper/h2#1181).
    """

    def __init__(self, conn: Any, protocol: Http2) -> None:
        self._conn, self._protocol = conn, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    def data_to_send(self) -> bytes:
        if self._protocol.is_time_to_tell:
            self._protocol.note_told()
        data: bytes = self._conn.data_to_send()
        return data


class Either(Tracked):
    """The class before uvicorn's AutoZttpProtocol in the MRO, which sees what a client speaks.

    It then gives way to one of `kinds`, the tracked protocols of HTTP/1.1 and of HTTP/2.
    """

    needs = frozenset({"_switch", "app_state", "config", "loop", "server_state"})
    kinds: ClassVar[tuple[type[Tracked], type[Tracked]]]

    def _switch(self, http2: bool, initial_data: bytes = b"") -> None:
        uvicorn: Any = self
        protocol = self.kinds[http2](
            config=uvicorn.config,
            server_state=uvicorn.server_state,
            app_state=uvicorn.app_state,
            _loop=uvicorn.loop,
        )
        protocol.connection.proxied = self.connection.proxied
        protocol.connection.rested = self.connection.rested
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if initial_data:
            protocol.data_received(initial_data)
