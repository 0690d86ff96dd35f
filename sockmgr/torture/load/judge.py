"""Drive several modes of load against one server and judge every request.

`Judge` runs in an event loop; `Load` runs one in a thread of its own, beside a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Self

from sockmgr.torture.load import websocket
from sockmgr.torture.load.connection import Connection, Request
from sockmgr.torture.load.mode import MAX_CONNECTIONS, MAX_SECONDS, Kind, Mode, Target, parse_mode
from sockmgr.torture.load.response import JSON_END, Reader, read_own
from sockmgr.torture.load.result import Outcome, Result, Row

FLOOR = 10  # answers without which a load says nothing: `not failed` holds of no request, too
PATIENCE = 10.0  # seconds that they may take when all else is done
UPLOAD = 65_536  # bytes, which fit into the buffers of a connection whoever reads
MESSAGES = 5  # by a WebSocket
PIECES = {Kind.HALF: 4, Kind.UPLOAD: 8}
FAILURE_DELAY = 0.05  # a closed loop must not spin on a server that refuses


class Group:
    """All connections of one mode. Sends while it is told to, and then finishes what is open."""

    def __init__(self, mode: Mode, target: Target, result: Result, read: Reader) -> None:
        self._mode = mode
        self._read = read
        self._target = target
        self._result = result
        self._loop = asyncio.get_running_loop()
        self._random = random.Random(7)  # noqa: S311 - how long answers take is no secret
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
        self._result.rows.append(row)
        return row

    def _connection(self) -> Connection:
        connection = Connection(self._target, self._finished, self._result.events, self._read)
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
            path += f"?s={mode.s or self._random.uniform(1.0, 3.0):.2f}"
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


class Judge:
    """Sends for `duration` seconds, then lets what is open end within `drain`."""

    def __init__(
        self,
        target: Target,
        modes: Iterable[Mode],
        *,
        duration: float,
        drain: float = 10.0,
        read: Reader = read_own,
    ) -> None:
        if not 0 < duration <= MAX_SECONDS:
            raise ValueError(f"a run lasts at most {MAX_SECONDS:g} s")
        self._target = target
        self._modes = list(modes)
        self._duration = duration
        self._drain = drain
        self._read = read
        self._enough = asyncio.Event()  # set in the judge's own loop: send no more
        self.result = Result()

    async def run(self) -> Result:
        """Load the server; return when every request has its outcome."""
        groups = [Group(mode, self._target, self.result, self._read) for mode in self._modes]
        for group in groups:
            group.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), self._duration)
        for group in groups:
            group.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain):
                for group in groups:
                    await group.drained.wait()
        for group in groups:
            group.close()
        return self.result


class Load(Judge):
    """Load from a thread of its own, for as long as the `with` block lasts.

        with Load(Target.at_url(url), ["short:rate=150", "slow"]) as load:
            …
        assert not load.result.lost

    `result.rows` grows while it runs; a row counts once its outcome is there. Before it ends
    it goes on until there are `floor` answers, and fails if they do not come.
    """

    def __init__(
        self,
        target: Target,
        modes: Iterable[str],
        *,
        drain: float = 10.0,
        floor: int = FLOOR,
        read: Reader = read_own,
    ) -> None:
        parsed = map(parse_mode, modes)
        super().__init__(target, parsed, duration=MAX_SECONDS, drain=drain, read=read)
        self._floor = floor
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._end()

    def _go_on(self) -> None:
        """Send on until there are answers enough, if they come: a block may be short."""
        end = time.monotonic() + PATIENCE
        while self._thread.is_alive() and self.result.answered < self._floor:
            if time.monotonic() > end:
                return
            time.sleep(0.01)

    def stop(self) -> Result:
        """Send no more, wait for what is open, and return what was found."""
        self._go_on()
        found = self._end()
        if found.answered < self._floor:
            raise AssertionError(f"{found.answered} answers: {found.failures()}")
        return found

    def _end(self) -> Result:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._enough.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.result

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as failure:  # handed to the thread that asks
            self._failure = failure
        finally:
            self._started.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self.run()
