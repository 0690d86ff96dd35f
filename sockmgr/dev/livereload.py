"""Makes the pages in a browser reload when newer code serves: serves a script, and events for it.

Owns a socket on the loopback and the connections to it. The application is not touched: a page
loads the script only if it has `tag`, one line of HTML. The script asks for /events, and says how
old its page is. It gets an event when code serves that is newer than the page can be, at once if
such code serves already. So a page misses nothing if it is loaded, or reconnects, at a bad moment.
"""

from __future__ import annotations

import asyncio
import contextlib
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
# worker has not closed yet.
KEPT = 0.5
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
        while self._clients:
            next(iter(self._clients)).close()
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
            next(iter(self._clients)).close()
        client = Client(sock, loop, self._is_newer, self._clients.pop)
        self._clients[client] = None

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


class Client:
    """One connection: a request and its answer, which for /events has no end. Owns the socket."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        is_newer: Callable[[float], bool],
        gone: Callable[[Client], object],
    ) -> None:
        sock.setblocking(False)
        self._sock, self._loop, self._is_newer, self._gone = sock, loop, is_newer, gone
        self._request = b""
        self.follows = False
        self._timer = loop.call_later(PATIENCE, self.close)
        loop.add_reader(sock, self._on_readable)

    def send(self, data: bytes) -> None:
        """Send all of `data` or close: a client that reads always leaves enough room for it."""
        with contextlib.suppress(OSError):
            if self._sock.send(data) == len(data):
                return
        self.close()

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._gone(self)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(HEAD_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._request += b"" if self.follows else data
        if not data or len(self._request) > HEAD_MAX:
            self.close()
        elif not self.follows and b"\r\n\r\n" in self._request:
            self._answer()

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
            self.send(_head("200 OK", "text/javascript") + script)
        else:
            self.send(_head("404 Not Found", "text/plain") + b"There is /livereload.js only.\n")
        self.close()


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
