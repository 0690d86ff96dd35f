"""How a worker leaves without losing a request: what is given away, what is closed, and when.

From the first moment no connection is accepted; what was is served. A connection of HTTP/1.1 that
is between two requests is given to a worker that serves on (moves.py), and its client sees
nothing. Where that cannot be, each answer says `Connection: close`, so a client that keeps its
connection in use moves on without a failure; in HTTP/2 the last answer that is open comes with a
GOAWAY (http2.py). A connection that is not in use is closed only when it has been idle for as long
as the keep-alive limit: a client that uses it in that very instant loses its request, but not more
often than on any day without a reload (RFC 9112, 9.5). WebSockets stay until shortly before the
deadline, and are then told 1012 (service restart), not all in one instant, or all of them would
return in one.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection
from weakref import WeakKeyDictionary

from sockmgr.worker import deadline, leaving
from sockmgr.worker.connection import KEY, Connection, Http1, Tracked
from sockmgr.worker.figures import App, Message, Receive, Send
from sockmgr.worker.http2 import Http2
from sockmgr.worker.moves import Moves
from sockmgr.worker.parting import Open, part

log = logging.getLogger("uvicorn.error")

CLOSE = (b"connection", b"close")
# Seconds in which the goodbye of HTTP/2 waits for an instant without an open stream: some clients
# (python-hyper/h2#1181) give up those that are open when it comes.
GRACE = 1.0


def dismiss(connection: Open) -> None:
    """Shut it down, once: to do it again raises in some of uvicorn's protocols."""
    if connection.shutdown is _is_dismissed:
        return
    try:
        if isinstance(connection, Tracked):
            connection.shutdown()
        else:
            part(connection)
    except Exception:  # one that cannot be told is no reason to let go of the others untold
        log.exception("a connection could not be told to close, and is cut off")
        connection.transport.abort()
    connection.shutdown = _is_dismissed


def kept_back_by(connection: Open) -> str:
    """Return why no other worker can ever go on with a connection; "" if one can."""
    return connection.connection.stays if isinstance(connection, Tracked) else "WebSocket"


def _is_dismissed() -> None:
    """Stand in place of the method of a connection that was shut down."""


class Drain:
    """The drain of one worker. `timeout` is when the manager kills; `idle` the keep-alive limit."""

    def __init__(self, timeout: float, idle: float) -> None:
        self._timeout, self._idle = timeout, idle
        self._goodbyes: WeakKeyDictionary[Open, float] = WeakKeyDictionary()
        self.began_at: float | None = None
        self.last = deadline.last(timeout)
        self.moves: Moves | None = None

    def begin(self) -> None:
        """From now on, answers close their connections."""
        if self.began_at is None:
            self.began_at = time.monotonic()

    def hasten(self) -> None:
        """Be done sooner: we are killed deadline.FINISH from now, if not before."""
        if self.left() > deadline.FINISH:
            self._timeout += deadline.FINISH - self.left()
            self.last = deadline.last(deadline.FINISH)
            self._goodbyes.clear()

    def left(self) -> float:
        """Return the seconds until the manager kills us."""
        now = time.monotonic()
        return self._timeout - (now - (self.began_at or now))

    def step(self, connections: Collection[Open], pending: int) -> bool:
        """Close what may be closed now; True when nothing is left, or the time is over.

        `pending` connections have been accepted, but are not among `connections` yet.
        """
        for each in tuple(connections):
            if isinstance(each, Http2):
                self._part(each)
            elif isinstance(each, Tracked):
                if not self.move(each):
                    self._close_if_idle(each)
            elif self.left() <= self._goodbye_at(each):
                dismiss(each)
        return not (connections or pending) or self.left() <= self.last

    def move(self, connection: Open | Http1) -> bool:
        """Give a connection to a worker that serves on; False if it stays here."""
        if self.moves is None or not isinstance(connection, Http1) or not connection.is_between:
            return False
        return self.moves.give(connection)

    def _will_move(self, connection: Connection) -> bool:
        """Return whether it need not close: in half of the time it can be given away, or never."""
        is_possible = self.moves is not None and not self.moves.is_over and not connection.stays
        return is_possible and self.left() > self._timeout / 2

    def _close_if_idle(self, protocol: Tracked) -> None:
        transport = protocol.transport
        if self._is_idle(protocol) and not protocol.connection.open and not transport.is_closing():
            transport.close()

    def _part(self, protocol: Http2) -> None:
        protocol.connection.leaving = True
        if protocol.busy:
            if not protocol.told and self._timeout - self.left() >= GRACE:
                protocol.tell()
        elif protocol.heard or self._is_idle(protocol):
            protocol.finish()
        elif protocol.told and not protocol.asked:
            protocol.ask()

    def _is_idle(self, protocol: Tracked) -> bool:
        return time.monotonic() - protocol.connection.quiet_since >= self._idle

    def _goodbye_at(self, websocket: Open) -> float:
        """Return when to close it, in seconds before the manager kills.

        Even the last one has half of last() to read why, before what remains is cut off.
        """
        spread = random.uniform(self.last / 2, self.last)  # noqa: S311 - no gain in guessing it
        return self._goodbyes.setdefault(websocket, self.last + spread)

    def wrap(self, app: App) -> App:
        """Return `app` with answers that close their connection while this drains."""

        async def serve(scope: Message, receive: Receive, send: Send) -> None:
            state = scope.get("state")
            connection = state.pop(KEY, None) if state is not None else None
            if scope["type"] != "lifespan":
                sign = {leaving.EXTENSION: leaving.extension()}
                scope["extensions"] = {**(scope.get("extensions") or {}), **sign}
            if connection is None or scope["type"] != "http":
                await app(scope, receive, send)
                return
            connection.note_start()
            try:
                await app(scope, receive, self._closing(connection, send))
            finally:
                connection.note_end()

        return serve

    def _closing(self, connection: Connection, send: Send) -> Send:
        async def closing(message: Message) -> None:
            if self.began_at is not None:
                connection.leaving = True
                is_last = message["type"] == "http.response.start" and not connection.has_more
                # What a client has pipelined is answered first; the last answer closes.
                if is_last and not self._will_move(connection):
                    message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
            await send(message)

        return closing
