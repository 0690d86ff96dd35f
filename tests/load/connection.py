"""One client connection, one request at a time. Owns its socket; decides what each end means."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.load.mode import Target
from tests.load.response import Malformed, Response, read_body
from tests.load.result import Outcome, Row

LOCAL_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
CONNECT_ERRORS = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ENOENT: Outcome.NOENT,
    errno.ETIMEDOUT: Outcome.CONNECT_TIMEOUT,
    errno.ECONNRESET: Outcome.RESET0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send, how long to wait, how the body must end, and the row that will tell of it."""

    row: Row
    data: bytes
    timeout: float
    connect_timeout: float
    keeps: bool
    must_end_with: bytes = b"}"


class Connection:
    """Connects when needed, sends, reads, and hands every request back with its outcome.

    `finished(connection, outcome)` is called once for each request. `happened(name)` tells what
    costs no request, such as the server's close of an idle connection.
    """

    def __init__(
        self,
        target: Target,
        finished: Callable[[Connection, Outcome], None],
        happened: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._finished = finished
        self._happened = happened
        self._sock: socket.socket | None = None
        self._request: Request | None = None
        self._response = Response()
        self._timer: asyncio.TimerHandle | None = None
        self._port = 0

    def start(self, request: Request) -> None:
        """Send one request: on the kept connection if it still stands, else on a new one."""
        self._request, self._response = request, Response()
        if self._sock is not None and self._was_closed():
            self._happened("idle_close")
            self._drop()
        request.row.began = time.monotonic()
        request.row.fresh = self._sock is None
        if self._sock is None:
            self._connect(request)
        else:
            self._send(request)
        request.row.port = self._port

    def close(self) -> None:
        """Close for good; a request still open is unfinished."""
        if self._request is not None:
            self._end(Outcome.UNFINISHED)
        self._drop()

    def _was_closed(self) -> bool:
        """Whether the peer closed the idle connection and the loop has not told us yet."""
        assert self._sock is not None
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        return True

    def _connect(self, request: Request) -> None:
        try:
            self._sock = socket.socket(self._target.family, socket.SOCK_STREAM)
        except OSError as error:
            self._end(Outcome.LOCAL_LIMIT, str(error))
            return
        self._sock.setblocking(False)
        if self._target.family != socket.AF_UNIX:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self._sock.connect_ex(self._target.address)
        if code == errno.EINPROGRESS:
            self._loop.add_writer(self._sock, self._connect_ended)
            self._arm(request.connect_timeout, Outcome.CONNECT_TIMEOUT)
            self._port = self._sock.getsockname()[1]
        elif code:
            self._connect_failed(code)
        else:
            self._send(request)

    def _connect_ended(self) -> None:
        assert self._sock is not None
        assert self._request is not None
        self._loop.remove_writer(self._sock)
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._connect_failed(code)
        else:
            self._send(self._request)

    def _connect_failed(self, code: int) -> None:
        if code in LOCAL_LIMITS:
            outcome = Outcome.LOCAL_LIMIT
        elif code == errno.EAGAIN:  # unix(7): the backlog is full; on TCP: no local port
            unix = self._target.family == socket.AF_UNIX
            outcome = Outcome.BACKLOG_FULL if unix else Outcome.LOCAL_LIMIT
        else:
            outcome = CONNECT_ERRORS.get(code, Outcome.CONNECT_ERR)
        self._end(outcome, errno.errorcode.get(code, str(code)))

    def _send(self, request: Request) -> None:
        assert self._sock is not None
        self._arm(request.timeout, Outcome.TIMEOUT)
        self._loop.add_reader(self._sock, self._readable)
        try:
            self._sock.send(request.data)  # so short that it is sent whole
        except (BrokenPipeError, ConnectionResetError):
            # The peer is gone. What it left to read says how: an answer, FIN or RST.
            self._readable(peer_gone=True)

    def _readable(self, *, peer_gone: bool = False) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(262_144)
        except BlockingIOError:
            if peer_gone:
                self._lost(reset=True)
        except ConnectionResetError:
            self._lost(reset=True)
        else:
            if data:
                self._received(data)
            else:
                self._lost(reset=False)

    def _received(self, data: bytes) -> None:
        if self._request is None:  # bytes that nobody asked for, such as a 408
            self._happened("idle_data")
            self._drop()
            return
        try:
            self._response.feed(data)
        except Malformed as error:
            self._end(Outcome.BAD_BODY, str(error))
            return
        if self._response.complete:
            self._judge(self._request)

    def _lost(self, *, reset: bool) -> None:
        if self._request is None:
            self._happened("idle_reset" if reset else "idle_close")
            self._drop()
        elif not reset and self._response.closed():
            self._judge(self._request)
        else:
            self._end(self._loss(self._request.row, reset=reset))

    def _loss(self, row: Row, *, reset: bool) -> Outcome:
        if self._response.started:
            return Outcome.RESET_MID if reset else Outcome.TRUNC_MID
        if not row.fresh:
            return Outcome.KA_LOST_RST if reset else Outcome.KA_LOST_FIN
        return Outcome.RESET0 if reset else Outcome.EMPTY

    def _judge(self, request: Request) -> None:
        """Give a complete response its outcome."""
        status = self._response.status
        if status >= 500:
            self._end(Outcome.HTTP_5XX, str(status))
        elif status >= 400:
            self._end(Outcome.HTTP_4XX, str(status))
        elif status != 200:
            self._end(Outcome.BAD_BODY, f"status {status}")
        else:
            self._judge_body(request)

    def _judge_body(self, request: Request) -> None:
        try:
            said = read_body(self._response.body, must_end_with=request.must_end_with)
        except Malformed as error:
            self._end(Outcome.BAD_BODY, str(error))
            return
        request.row.pid, request.row.version = said.pid, said.version
        self._end(Outcome.OK)

    def _end(self, outcome: Outcome, detail: str = "") -> None:
        assert self._request is not None
        request, self._request = self._request, None
        row = request.row
        row.outcome, row.detail, row.ended = outcome, detail, time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        if not (outcome is Outcome.OK and request.keeps and self._response.keep_alive):
            self._drop()
        self._finished(self, outcome)

    def _arm(self, seconds: float, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._end, outcome)

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
