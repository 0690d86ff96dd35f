"""HTTP/2 as uvicorn speaks it by zttp, with a goodbye that loses no request.

RFC 9113, 6.8: a GOAWAY that names no stream tells the client to open none any more, and those that
cross it are answered. When the client has answered a PING that was sent after the last answer, it
has read that GOAWAY and all answers, and all that it had sent before has come: then the last GOAWAY
names the last stream, and the connection is closed. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from sockmgr.worker.connection import Tracked

NO_STREAM = 2**31 - 1
HIGH_WATER = 65_536  # bytes of an answer that wait for the client
MOST_BODY = 1 << 20  # bytes of a request that are read while its answer waits
PING = b"\0\0\x08\x06\0\0\0\0\0"  # the head of its frame; RFC 9113, 6.7
NEEDED = ("close", "data_to_send", "has_pending_send")  # of zttp.H2Connection


class Http2(Tracked):
    """Goes before ZttpH2Protocol."""

    needs = frozenset({"_close_connection", "conn", "cycles", "events", "flush", "handle_request"})
    needs_of_cycle = frozenset(
        {"disconnected", "flow", "message_event", "more_body", "response_complete", "stream"}
    )

    conn: Any
    cycles: dict[int, Any]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.conn = _Outgoing(self.conn, self)
        self.connection.more = True  # it has no `Connection: close`; RFC 9113, 8.2.2
        self.connection.multiplexed = True
        self.told = False  # to open no stream any more
        self.asked = self.heard = False  # after the last answer
        self._asks = 0
        self._used = False
        self._waiting: set[asyncio.Event] = set()  # answers, for the client to let more come

    @property
    def busy(self) -> bool:
        """Whether an answer is not finished, or waits for the client to let it come."""
        # uvicorn takes an answer for complete when zttp has it.
        return any(not cycle.response_complete for cycle in self.cycles.values()) or bool(
            self.conn.has_pending_send()
        )

    @property
    def is_time_to_tell(self) -> bool:
        """Whether to tell it with what is sent now: the end of all that it had asked for."""
        return self.connection.leaving and self._used and not (self.told or self.busy)

    def tell(self) -> None:
        """Tell the client to open no stream any more."""
        self.note_told()
        self.flush()  # type: ignore[attr-defined]

    def note_told(self) -> None:
        """Do so with what is sent next."""
        self.told = True
        self.conn.close(0, NO_STREAM)

    def ask(self) -> None:
        """Ask for a sign that it has read all until here."""
        self.asked = True
        self._asks += 1
        self.transport.write(PING + self._asks.to_bytes(8, "big"))  # zttp sends none by itself

    def finish(self) -> None:
        """Name the last stream, and close."""
        self._close_connection()

    give_up = finish

    # --- Called by asyncio ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Have answers look whether the client lets more come."""
        super().data_received(data)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have answers wait no more."""
        super().connection_lost(exc)
        self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            waiting.set()

    # --- Called by uvicorn ---------------------------------------------------------------------

    def events(self) -> Iterator[Any]:
        """Look for the answer to the last PING."""
        for event in super().events():  # type: ignore[misc]
            if self.asked and getattr(event, "ack", False):  # only a zttp.Ping has that
                self.heard = event.data == self._asks.to_bytes(8, "big")
            yield event

    def handle_request(self, event: Any) -> None:
        """Note that there will be another answer, and whether the request is whole."""
        self._used = True
        self.asked = self.heard = False
        super().handle_request(event)  # type: ignore[misc]
        if cycle := self.cycles.get(event.stream_id):
            cycle.flow = _Flow(cycle, self.cycles, self._waiting)
        # Since zttp 0.0.22 nothing else tells the end of a request without a body, and uvicorn 0.54
        # waits for it: an application that reads the body would wait for ever.
        if event.end_stream and (cycle := self.cycles.get(event.stream_id)):
            cycle.more_body = False
            cycle.message_event.set()

    def _close_connection(self) -> None:
        self.told = True  # the one that names the last stream says so, too, and is the last
        super()._close_connection()  # type: ignore[misc]


class _Flow:
    """What uvicorn asks before it sends more of an answer.

    Its own looks at the connection only, and what a client does not let come on a stream, zttp
    holds: all of an answer that never ends, if uvicorn gave it to zttp.
    """

    def __init__(self, cycle: Any, cycles: Mapping[int, Any], waiting: set[asyncio.Event]) -> None:
        self._cycle, self._connection, self._waiting = cycle, cycle.flow, waiting
        self._cycles = cycles

    @property
    def write_paused(self) -> bool:
        """Whether to wait: drain()."""
        return self._is_full or bool(self._connection.write_paused)

    async def drain(self) -> None:
        """Wait until the client lets more come, or is gone."""
        came = asyncio.Event()
        self._waiting.add(came)
        try:
            while self._is_full and not self._cycle.disconnected:
                # uvicorn reads no more while an application leaves a body in its buffer. What the
                # client lets come is behind that body, and would never be heard.
                if all(len(each.body) < MOST_BODY for each in self._cycles.values()):
                    self._connection.resume_reading()
                await came.wait()
                came.clear()
        finally:
            self._waiting.discard(came)
        await self._connection.drain()

    @property
    def _is_full(self) -> bool:
        return (self._cycle.stream.pending_bytes or 0) > HIGH_WATER  # None: it has ended


class _Outgoing:
    """zttp's connection, but that the goodbye leaves together with the end of the last answer.

    Not after it: a client that reads only when it waits for an answer, as httpx does, would find it
    after it has asked again, and then fail (python-hyper/h2#1181).
    """

    def __init__(self, conn: Any, protocol: Http2) -> None:
        self._conn, self._protocol = conn, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now."""
        if self._protocol.is_time_to_tell:
            self._protocol.note_told()
        data: bytes = self._conn.data_to_send()
        return data


class Either(Tracked):
    """Goes before AutoZttpProtocol, which gives way to another when it sees what a client speaks.

    `kinds` are the tracked protocols of HTTP/1.1 and HTTP/2.
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
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if initial_data:
            protocol.data_received(initial_data)
