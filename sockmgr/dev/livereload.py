"""Has the pages of a browser loaded anew when newer code serves: a script, and events for it.

Owns a socket on loopback and the connections to it. It is no part of what is developed: a page has
to ask for the script, by the one line of HTML that is `tag`. The script asks for /events, and says
how old its page is: it gets an event when newer code serves than the page can be of, at once if
that is so already. Nothing is missed by a page that was loaded, or reconnects, at a wrong moment.
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
# The usual one of such servers. If nothing else has it, a page finds the next dev as well.
PORT = 35729
VARIABLE = "SOCKMGR_LIVERELOAD"
# Until then old code may answer, on a connection that its worker has not closed yet.
KEPT = 0.5
PATIENCE = 5.0  # seconds for a request
HEAD_MAX = 16 << 10
CONNECTIONS_MAX = 100
_EVENTS = re.compile(r"/events(?:\?age=(\d{1,12}))?")  # milliseconds
_EVENT = b"data: newer\n\n"
_HEAD = (
    "HTTP/1.1 {status}\r\n"
    "Content-Type: {kind}; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    # The page is of another origin, and whoever else reads it learns when code was saved.
    "Access-Control-Allow-Origin: *\r\n"
    "Cross-Origin-Resource-Policy: cross-origin\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Connection: close\r\n\r\n"
)


class LiveReload:
    """The server, from `listen` to `close`, as often as wanted; served once there is a loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: socket.socket | None = None
        self._clients: dict[Client, None] = {}
        self._serves: dict[str, int] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}  # for the old code of a service to go
        self._alone_at = -math.inf  # since when no other code than what serves is left

    @property
    def script(self) -> str:
        """The address of the script; "" when nobody listens."""
        if self._listener is None:
            return ""
        return f"http://{HOST}:{self._listener.getsockname()[1]}/livereload.js"

    @property
    def tag(self) -> str:
        """What to put into a page."""
        return f'<script async src="{self.script}"></script>'

    def listen(self) -> str:
        """Listen, if we do not; return the address of the script. Raises ListenError."""
        if self._listener is None:
            self._listener = _listen()
            self._accept_in_loop()
        return self.script

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve in this loop, until `close`. What was before it was of other code."""
        self._loop, self._alone_at = loop, loop.time()
        self._accept_in_loop()

    def serves(self, service: str, generation: int, *, alone: bool) -> None:
        """Hear what serves, and whether it is `alone`: no process of other code is left."""
        if self._loop is None:
            return
        if self._serves.get(service) != generation:
            self._serves[service] = generation
            self._wait_no_more(service)
            tell = functools.partial(self._tell, service)
            self._waiting[service] = self._loop.call_later(KEPT, tell)
        if alone and service in self._waiting:
            self._tell(service)

    def close(self) -> None:
        """Serve nobody any more."""
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
        except OSError:  # it is gone again
            return
        if len(self._clients) >= CONNECTIONS_MAX:
            next(iter(self._clients)).close()
        client = Client(sock, loop, self._is_newer, self._clients.pop)
        self._clients[client] = None

    def _is_newer(self, age: float) -> bool:
        """Tell whether a page that was asked for `age` seconds ago may be of older code."""
        return self._loop is not None and self._alone_at > self._loop.time() - age

    def _wait_no_more(self, service: str) -> None:
        if timer := self._waiting.pop(service, None):
            timer.cancel()

    def _tell(self, service: str) -> None:
        self._wait_no_more(service)
        if self._loop is not None:
            self._alone_at = self._loop.time()
        for client in [client for client in self._clients if client.follows]:
            client.send(_EVENT)


class Client:
    """One connection, owned: a request, and its answer, which for /events has no end."""

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
        """Send it whole, or give up: what is sent is less than the kernel takes from a reader."""
        with contextlib.suppress(OSError):
            if self._sock.send(data) == len(data):
                return
        self.close()

    def close(self) -> None:
        """Close the connection; no harm if it is closed."""
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
        asked = target if method == "GET" else ""
        self._timer.cancel()
        if events := _EVENTS.fullmatch(asked):
            self.follows = True
            newer = self._is_newer(int(events[1] or 0) / 1000)
            self.send(_head("200 OK", "text/event-stream") + (_EVENT if newer else b":\n\n"))
            return
        if asked.partition("?")[0] == "/livereload.js":
            script = Path(__file__).with_name("livereload.js").read_bytes()
            self.send(_head("200 OK", "text/javascript") + script)
        else:
            self.send(_head("404 Not Found", "text/plain") + b"There is /livereload.js only.\n")
        self.close()


def _listen() -> socket.socket:
    try:
        listener = socket.create_server((HOST, PORT))
    except OSError:  # another dev has it
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
