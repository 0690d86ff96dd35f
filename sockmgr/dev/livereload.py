"""Makes the pages in a browser reload when newer code serves: serves a script, and events for it.

Owns a socket on the loopback and the connections to it. The application is not touched: a page
loads the script only if it has `tag`, one line of HTML. The script asks for /events, and says how
old its page is. It gets an event when code serves that is newer than the page can be, at once if
such code serves already. So a page misses nothing if it is loaded, or reconnects, at a bad moment.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import socket
from collections.abc import Callable
from pathlib import Path

from sockmgr.errors import ListenError

HOST = "127.0.0.1"
# The usual port of livereload servers. It is fixed so that an open page also finds the next dev.
PORT = 35729
VARIABLE = "SOCKMGR_LIVERELOAD"
# Seconds after new code began to serve in which old code may still answer, on a connection that its
# worker has not closed yet: it is told to stop only when no request is under way, or after 2 s.
KEPT = 2.5
PATIENCE = 5.0  # seconds in which a client must have sent its request
HEAD_MAX = 16 << 10
CONNECTIONS_MAX = 100
_EVENTS = re.compile(r"/events(?:\?age=(\d{1,12}))?")  # milliseconds
_EVENT = b"data: newer\n\n"
_HEAD = (
    "HTTP/1.1 {status}\r\n"
    "Content-Type: {kind}; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    # The page has another origin. Others who read the events only learn when code was saved.
    "Access-Control-Allow-Origin: *\r\n"
    "Cross-Origin-Resource-Policy: cross-origin\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Connection: close\r\n\r\n"
)


class LiveReload:
    """The server. It listens from `listen` to `close`, any number of times.

    Connections are served once `attach` has given it a loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: socket.socket | None = None
        self._clients: dict[Client, None] = {}
        self._serves: dict[str, int] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}  # until old code of a service is gone
        self._alone_at = -math.inf  # since then, only the code that serves now can have answered

    @property
    def script(self) -> str:
        """The address of the script; "" when nobody listens."""
        if self._listener is None:
            return ""
        return f"http://{HOST}:{self._listener.getsockname()[1]}/livereload.js"

    @property
    def tag(self) -> str:
        return f'<script async src="{self.script}"></script>'

    def listen(self) -> str:
        """Listen, if we do not; return the address of the script. Raises ListenError."""
        if self._listener is None:
            self._listener = _listen()
            self._accept_in_loop()
        return self.script

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve in this loop until `close`. Pages from before now count as pages of older code."""
        self._loop, self._alone_at = loop, loop.time()
        self._accept_in_loop()

    def serves(self, service: str, generation: int, *, alone: bool) -> None:
        """Note that this generation serves; `alone`: no process of another generation is left."""
        if self._loop is None:
            return
        if self._serves.get(service) != generation:
            self._serves[service] = generation
            self._wait_no_more(service)
            announce = functools.partial(self._announce, service)
            self._waiting[service] = self._loop.call_later(KEPT, announce)
        if alone and service in self._waiting:
            self._announce(service)

    def close(self) -> None:
        for client in self._clients:
            client.transport.close()
        for service in list(self._waiting):
            self._wait_no_more(service)
        if self._listener is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    # Private

    def _accept_in_loop(self) -> None:
        if self._loop is not None and self._listener is not None:
            self._loop.add_reader(self._listener, self._accept, self._loop, self._listener)

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # the client is gone again
            return
        if len(self._clients) >= CONNECTIONS_MAX:
            next(iter(self._clients)).transport.abort()
        begun = loop.connect_accepted_socket(lambda: Client(self._is_newer, self._clients), sock)
        self._beginning = loop.create_task(begun)

    def _is_newer(self, age: float) -> bool:
        """Return whether older code may have served a page that was requested `age` seconds ago."""
        return self._loop is not None and self._alone_at > self._loop.time() - age

    def _wait_no_more(self, service: str) -> None:
        if timer := self._waiting.pop(service, None):
            timer.cancel()

    def _announce(self, service: str) -> None:
        self._wait_no_more(service)
        if self._loop is not None:
            self._alone_at = self._loop.time()
        for client in [client for client in self._clients if client.follows]:
            client.send(_EVENT)


class Client(asyncio.Protocol):
    """One connection: a request and its answer, which for /events has no end."""

    def __init__(self, is_newer: Callable[[float], bool], clients: dict[Client, None]) -> None:
        """Answer by `is_newer`; be one of `clients` from the connection's begin to its end."""
        self._is_newer, self._clients = is_newer, clients
        self._request = b""
        self.follows = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a socket has
        self.transport = transport
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, transport.abort)
        self._clients[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._timer.cancel()
        del self._clients[self]

    def data_received(self, data: bytes) -> None:
        self._request += b"" if self.follows else data
        if len(self._request) > HEAD_MAX:
            self.transport.close()
        elif not self.follows and b"\r\n\r\n" in self._request:
            self._answer()

    def send(self, data: bytes) -> None:
        """Send all of `data` or close: a client that reads always leaves enough room for it."""
        self.transport.write(data)
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _answer(self) -> None:
        method, target, *_ = [*self._request.decode("latin-1").split(maxsplit=2), "", ""]
        path = target if method == "GET" else ""
        self._timer.cancel()
        if events := _EVENTS.fullmatch(path):
            self.follows = True
            newer = self._is_newer(int(events[1] or 0) / 1000)
            self.send(_head("200 OK", "text/event-stream") + (_EVENT if newer else b":\n\n"))
            return
        if path.partition("?")[0] == "/livereload.js":
            script = Path(__file__).with_name("livereload.js").read_bytes()
            self.transport.write(_head("200 OK", "text/javascript") + script)
        else:
            only = b"There is /livereload.js only.\n"
            self.transport.write(_head("404 Not Found", "text/plain") + only)
        self.transport.close()


def _listen() -> socket.socket:
    try:
        listener = socket.create_server((HOST, PORT))
    except OSError:  # another dev, or something else, has the usual port
        try:
            listener = socket.create_server((HOST, 0))
        except OSError as error:
            raise ListenError(
                f"cannot listen on {HOST} for livereload: {error.strerror}",
                do="see what is wrong with that address, or do without dev.livereload",
            ) from error
    listener.setblocking(False)
    return listener


def _head(status: str, kind: str) -> bytes:
    return _HEAD.format(status=status, kind=kind).encode()
