"""Serves metrics over HTTP: one WSGI application on one listening socket.

prometheus_client has the application, and wsgiref the protocol. This adds that the socket may be
inherited, and that no client can hold a thread for long. The number of threads is limited; when all
are busy, the client that has kept the server waiting longest is hung up on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from socketserver import BaseServer, ThreadingMixIn
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication

from sockmgr.config import address
from sockmgr.config.spec import Listen, Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets
from sockmgr.systemd.passed import passed_descriptors

_CONNECTION = "sockmgr.connection"
_NOT_SERVED = "no metrics are served; the manager goes on as it did"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many `threads` there may be, and how many of them may be `asking` the manager at a time.

    `silence` is how many seconds a client may send nothing, `longest` how many a whole exchange
    may take.
    """

    threads: int = 32
    asking: int = 4
    silence: float = 5.0
    longest: float = 15.0


class MetricsServer(ThreadingMixIn, WSGIServer):
    """The server. Owns the listening socket `sock`, until `server_close`."""

    daemon_threads = True

    def __init__(
        self, sock: socket.socket, application: WSGIApplication, limits: Limits | None = None
    ) -> None:
        # Not WSGIServer.__init__: it makes a socket of its own, which a sandbox may forbid.
        BaseServer.__init__(self, sock.getsockname(), _Handler)
        self.socket = sock
        self.server_name, self.server_port = "sockmgr", 0
        self.setup_environ()
        self.set_app(self._answer)
        self._application = application
        self._limits = limits or Limits()
        self._room = threading.BoundedSemaphore(self._limits.threads)
        self._asking = threading.BoundedSemaphore(self._limits.asking)
        self._slow: dict[socket.socket, None] = {}  # clients that we wait for, the longest first
        self._lock = threading.Lock()

    def serve(self) -> NoReturn:
        """Answer until a signal ends the process; asleep while nobody scrapes."""
        while True:  # serve_forever() would wake up twice a second
            self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and give a unix peer the two-part address that wsgiref expects."""
        sock, peer = super().get_request()
        sock.settimeout(self._limits.silence)
        return sock, peer if isinstance(peer, tuple) else ("unix", 0)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; if all are busy, hang up on the slowest client first."""
        if not self._room.acquire(blocking=False):
            self._hang_up_on_the_slowest()
            self._room.acquire()
        self._wait_for(request, True)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request, and hang up if that takes too long."""
        overdue = threading.Timer(self._limits.longest, _hang_up, [request])
        overdue.daemon = True
        overdue.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            overdue.cancel()
            self._wait_for(request, False)
            self._room.release()

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Ask the manager for a client whose request is complete; it is not slow meanwhile."""
        self._wait_for(environ[_CONNECTION], False)
        with self._asking:
            answer = self._application(environ, start)
        self._wait_for(environ[_CONNECTION], True)
        return answer

    def _wait_for(self, sock: socket.socket, slow: bool) -> None:
        with self._lock:
            if slow:
                self._slow[sock] = None
            else:
                self._slow.pop(sock, None)

    def _hang_up_on_the_slowest(self) -> None:
        with self._lock:
            slowest = next(iter(self._slow), None)
            if slowest is not None:  # if no client is slow, all threads are about to be free
                del self._slow[slowest]
                _hang_up(slowest)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that hung up or sent nothing is no fault of ours."""


class _Handler(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        """Add the connection, by which the server knows whose request it is."""
        return {**super().get_environ(), _CONNECTION: self.connection}

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: scrapes are frequent, and a bad request is the client's fault."""


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the connection has ended
        sock.shutdown(socket.SHUT_RDWR)


# --- Sockets -------------------------------------------------------------------------------------


def listening_at(text: str) -> socket.socket:
    """Return a socket that listens at HOST:PORT, tcp://... or unix://...; raise ListenError."""
    has_scheme = "://" in text or text.startswith(f"{Scheme.ABSTRACT}:")
    try:
        found, options = address.parse(text if has_scheme else f"tcp://{text}")
    except ValueError as error:
        raise _unusable(text, str(error)) from None
    if options or not found.traits.is_stream:
        raise _unusable(text, "allowed: HOST:PORT, unix:///PATH or unix-abstract:NAME")
    try:
        return sockets.bind(Listen(name="metrics", address=found, backlog=64), reuse_port=False)
    except ListenError as error:
        do = "stop the process that holds it, or name another address with --listen"
        raise ListenError(error.what, means=_NOT_SERVED, do=do) from error


def passed() -> socket.socket | None:
    """Return the socket that systemd passed, None without one; raise ListenError if it is unfit."""
    found = [fd for fds in passed_descriptors().values() for fd in fds]
    if not found:
        return None
    with contextlib.suppress(OSError):  # the descriptor is no socket
        sock = socket.socket(fileno=found[0])
        if len(found) == 1 and queues.is_listening(sock):
            return sock
    raise ListenError(
        "systemd passed something else than one socket that listens",
        means=_NOT_SERVED,
        do="have one ListenStream= in the .socket unit, and Accept=no",
    )


def _unusable(text: str, why: str) -> ListenError:
    return ListenError(f"cannot listen on {text}: {why}", means=_NOT_SERVED)


def url(sock: socket.socket) -> str:
    where = sockets.describe(sock)
    return where.replace("tcp:", "http:", 1) + "/metrics" if where.startswith("tcp:") else where
