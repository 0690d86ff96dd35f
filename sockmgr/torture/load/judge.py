"""Drive several modes of load against one server and judge every request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Self

from sockmgr.torture.load import websocket
from sockmgr.torture.load.connection import Connection, Request
from sockmgr.torture.load.mode import MAX_CONNECTIONS, Kind, Mode, Target
from sockmgr.torture.load.response import JSON_END, Reader, read_own
from sockmgr.torture.load.result import Outcome, Row

UPLOAD = 65_536  # bytes, which fit into the buffers of a connection whoever reads
MESSAGES = 5  # by a WebSocket
PIECES = {Kind.HALF: 4, Kind.UPLOAD: 8}
FAILURE_DELAY = 0.05  # a closed loop must not spin on a server that refuses


class Group:
    """All connections of one mode. Sends while it is told to, and then finishes what is open."""

    def __init__(self, mode: Mode, target: Target, rows: list[Row], read: Reader) -> None:
        self._mode = mode
        self._read = read
        self._target = target
        self._rows = rows
        self._loop = asyncio.get_running_loop()
        self._busy: set[Connection] = set()
        self._idle: list[Connection] = []
        self._kept: list[Connection] = []
        self._waiting: deque[Row] = deque()  # due, and every connection of the pool is busy
        self._sending = False
        self.drained = asyncio.Event()  # told to stop, and every request has its outcome

    def start(self) -> None:
        self._sending = True
        if self._mode.open_loop:
            self._due(self._loop.time())
            return
        for _ in range(self._mode.conns):
            self._begin(self._connection(), self._row(self._loop.time()))

    def stop(self) -> None:
        """Send no more than what is due already."""
        self._sending = False
        self._check_drained()

    def close(self) -> None:
        """End everything now; what is open is unfinished."""
        self._sending = False
        self._waiting.clear()
        for connection in {*self._busy, *self._kept}:
            connection.close()

    def _due(self, at: float) -> None:
        """Issue the request that was due `at`, and arrange for the next."""
        if not self._sending:
            return
        row = self._row(at)
        if self._mode.keeps:
            self._waiting.append(row)
            self._serve_waiting()
        elif len(self._busy) < MAX_CONNECTIONS:
            self._begin(self._connection(), row)
        else:
            row.outcome, row.ended = Outcome.LOCAL_LIMIT, time.monotonic()
        following = at + 1 / self._mode.rate
        self._loop.call_at(following, self._due, following)

    def _serve_waiting(self) -> None:
        while self._waiting:
            if self._idle:
                connection = self._idle.pop()
            elif len(self._kept) < self._mode.conns:
                connection = self._connection()
            else:
                return
            self._begin(connection, self._waiting.popleft())

    def _row(self, scheduled: float) -> Row:
        row = Row(mode=str(self._mode.kind), scheduled=scheduled)
        self._rows.append(row)
        return row

    def _connection(self) -> Connection:
        connection = Connection(self._target, self._finished, self._read)
        if not self._mode.open_loop or self._mode.keeps:
            self._kept.append(connection)
        return connection

    def _begin(self, connection: Connection, row: Row) -> None:
        self._busy.add(connection)
        connection.start(self._request(row))

    def _request(self, row: Row) -> Request:
        mode = self._mode
        if mode.kind is Kind.WEBSOCKET:
            return Request(
                row=row, pieces=websocket.pieces(mode.path, MESSAGES),
                pause=mode.s / (MESSAGES + 1), timeout=mode.timeout,
                connect_timeout=mode.connect_timeout, keeps=False,
                reads=partial(websocket.Session, MESSAGES),
                status=websocket.SWITCHING_PROTOCOLS,
            )  # fmt: skip
        path, ends_with = mode.path, JSON_END
        if mode.kind in {Kind.SLOW, Kind.STREAM}:
            path += f"?s={mode.s:.2f}"
        close = "" if mode.keeps else "Connection: close\r\n"
        method, rest = "GET", b"\r\n"
        if mode.kind is Kind.UPLOAD:
            method, rest = "POST", b"Content-Length: %d\r\n\r\n" % UPLOAD + b"u" * UPLOAD
            ends_with = b'"received": %d}' % UPLOAD
        elif mode.kind is Kind.STREAM:
            ends_with = b"END"
        number = PIECES.get(mode.kind, 1)
        data = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{close}".encode() + rest
        size = math.ceil(len(data) / number)
        return Request(
            row=row,
            pieces=[data[at : at + size] for at in range(0, len(data), size)],
            pause=mode.s / (number - 1) if number > 1 else 0.0,
            timeout=mode.timeout,
            connect_timeout=mode.connect_timeout,
            keeps=mode.keeps,
            must_end_with=ends_with,
        )

    def _check_drained(self) -> None:
        if not (self._sending or self._busy or self._waiting):
            self.drained.set()

    def _finished(self, connection: Connection, outcome: Outcome) -> None:
        self._busy.discard(connection)
        self._check_drained()
        if self._mode.open_loop:
            if self._mode.keeps:
                self._idle.append(connection)
                self._loop.call_soon(self._serve_waiting)  # not nested: all may be refused
        elif self._sending:
            pause = self._mode.think if outcome is Outcome.OK else FAILURE_DELAY
            self._loop.call_later(pause, self._again, connection)

    def _again(self, connection: Connection) -> None:
        if self._sending:
            self._begin(connection, self._row(self._loop.time()))


class Load:
    """Load from a thread of its own, for as long as the `with` block lasts.

    `rows` grows while it runs; a row counts once its outcome is there.
    """

    def __init__(
        self,
        target: Target,
        modes: Iterable[Mode],
        *,
        drain: float = 10.0,
        read: Reader = read_own,
    ) -> None:
        """What is open at the end gets `drain` seconds to end."""
        self.rows: list[Row] = []
        self._target, self._modes = target, list(modes)
        self._drain, self._read = drain, read
        self.enough = asyncio.Event()  # set in the load's own loop: send no more
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Send no more, and wait for what is open."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.enough.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self.run())
        except BaseException as failure:  # handed to the thread that asks
            self._failure = failure
        finally:
            self._started.set()

    async def run(self) -> None:
        """Load the server in this event loop; return when every request has its outcome."""
        self._loop = asyncio.get_running_loop()
        groups = [Group(mode, self._target, self.rows, self._read) for mode in self._modes]
        for group in groups:
            group.start()
        self._started.set()
        await self.enough.wait()
        for group in groups:
            group.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain):
                for group in groups:
                    await group.drained.wait()
        for group in groups:
            group.close()
