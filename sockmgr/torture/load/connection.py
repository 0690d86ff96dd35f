"""One client connection, one request at a time. Owns its socket; decides what each end means."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sockmgr.torture.load.mode import Target
from sockmgr.torture.load.response import Malformed, Reader, Response, read_own
from sockmgr.torture.load.result import Outcome, Row

LOCAL_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
CONNECT_ERRORS = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ENOENT: Outcome.NOENT,
    errno.ETIMEDOUT: Outcome.CONNECT_TIMEOUT,
    errno.ECONNRESET: Outcome.RESET0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send, how long to wait, how the body must end, and the row that will tell of it.

    The pieces are sent one by one, with `pause` seconds between two of them. `reads` makes what
    reads the answer, which is to have `status`.
    """

    row: Row
    pieces: Sequence[bytes]
    pause: float = 0.0
    timeout: float
    connect_timeout: float
    keeps: bool
    must_end_with: bytes = b"}"
    reads: Callable[[], Response] = Response
    status: int = 200


class Connection:
    """Connects when needed, sends, reads, and hands every request back with its outcome.

    `finished(connection, outcome)` is called once for each request.
    """

    def __init__(
        self,
        target: Target,
        finished: Callable[[Connection, Outcome], None],
        read: Reader = read_own,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._finished = finished
        self._read = read
        self._sock: socket.socket | None = None
        self._request: Request | None = None
        self._response = Response()
        self._timer: asyncio.TimerHandle | None = None
        self._next_piece: asyncio.TimerHandle | None = None
        self._port = 0

    def start(self, request: Request) -> None:
        """Send one request: on the kept connection if it still stands, else on a new one."""
        self._request, self._response = request, request.reads()
        if self._sock is not None and _was_closed(self._sock):
            self._drop()
        request.row.began = time.monotonic()
        request.row.fresh = self._sock is None
        if self._sock is None:
            self._connect(request)
        else:
            request.row.port = self._port
            self._send(self._sock, request)

    def close(self) -> None:
        """Close for good; a request still open is unfinished."""
        if self._request is not None:
            self._end(self._request, Outcome.UNFINISHED)
        self._drop()

    def _connect(self, request: Request) -> None:
        try:
            self._sock = sock = socket.socket(self._target.family, socket.SOCK_STREAM)
        except OSError as error:
            self._end(request, Outcome.LOCAL_LIMIT, str(error))
            return
        sock.setblocking(False)
        if self._target.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(self._target.address)
        if code not in (0, errno.EINPROGRESS):
            self._connect_failed(request, code)
            return
        if self._target.family != socket.AF_UNIX:
            request.row.port = self._port = sock.getsockname()[1]
        if code:
            self._loop.add_writer(sock, self._connect_ended, sock, request)
            self._arm(request, request.connect_timeout, Outcome.CONNECT_TIMEOUT)
        else:
            self._send(sock, request)

    def _connect_ended(self, sock: socket.socket, request: Request) -> None:
        self._loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._connect_failed(request, code)
        else:
            self._send(sock, request)

    def _connect_failed(self, request: Request, code: int) -> None:
        if code in LOCAL_LIMITS:
            outcome = Outcome.LOCAL_LIMIT
        elif code == errno.EAGAIN:  # unix(7): the backlog is full; on TCP: no local port
            unix = self._target.family == socket.AF_UNIX
            outcome = Outcome.BACKLOG_FULL if unix else Outcome.LOCAL_LIMIT
        else:
            outcome = CONNECT_ERRORS.get(code, Outcome.CONNECT_ERR)
        self._end(request, outcome, errno.errorcode.get(code, str(code)))

    def _send(self, sock: socket.socket, request: Request) -> None:
        self._arm(request, request.timeout, Outcome.TIMEOUT)
        self._loop.add_reader(sock, self._readable, sock)
        self._send_piece(sock, iter(request.pieces), request.pause)

    def _send_piece(self, sock: socket.socket, pieces: Iterator[bytes], pause: float) -> None:
        piece = next(pieces, None)
        if piece is None:
            return
        try:
            sock.send(piece)  # so short that it is sent whole
        except (BrokenPipeError, ConnectionResetError):
            # The peer is gone. What it left to read says how: an answer, FIN or RST.
            self._readable(sock, peer_gone=True)
        else:
            if pause:
                self._next_piece = self._loop.call_later(
                    pause, self._send_piece, sock, pieces, pause
                )

    def _readable(self, sock: socket.socket, *, peer_gone: bool = False) -> None:
        try:
            data = sock.recv(262_144)
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
            self._drop()
            return
        try:
            self._response.feed(data)
        except Malformed as error:
            self._end(self._request, Outcome.BAD_BODY, str(error))
            return
        if self._response.complete:
            self._judge(self._request)

    def _lost(self, *, reset: bool) -> None:
        if self._request is None:
            self._drop()
        elif not reset and self._response.closed():
            self._judge(self._request)
        else:
            self._end(self._request, self._loss(self._request.row, reset=reset))

    def _loss(self, row: Row, *, reset: bool) -> Outcome:
        if self._response.started:
            return Outcome.RESET_MID if reset else Outcome.TRUNC_MID
        if not row.fresh:
            return Outcome.KA_LOST_RST if reset else Outcome.KA_LOST_FIN
        return Outcome.RESET0 if reset else Outcome.EMPTY

    def _judge(self, request: Request) -> None:
        """Give a complete response its outcome."""
        status = self._response.status
        if status != request.status:
            outcome = {4: Outcome.HTTP_4XX, 5: Outcome.HTTP_5XX}.get(status // 100)
            self._end(request, outcome or Outcome.BAD_BODY, f"status {status}")
            return
        try:
            said = self._read(self._response.body, request.must_end_with)
        except Malformed as error:
            self._end(request, Outcome.BAD_BODY, str(error))
            return
        request.row.pid, request.row.version = said
        self._end(request, Outcome.OK)

    def _end(self, request: Request, outcome: Outcome, detail: str = "") -> None:
        self._request = None
        row = request.row
        row.outcome, row.detail, row.ended = outcome, detail, time.monotonic()
        self._disarm()
        if not (outcome is Outcome.OK and request.keeps and self._response.keep_alive):
            self._drop()
        self._finished(self, outcome)

    def _arm(self, request: Request, seconds: float, outcome: Outcome) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._end, request, outcome)

    def _disarm(self) -> None:
        for timer in (self._timer, self._next_piece):
            if timer is not None:
                timer.cancel()

    def _drop(self) -> None:
        self._disarm()
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None


def _was_closed(sock: socket.socket) -> bool:
    """Return whether the peer closed an idle connection and the loop has not told us yet."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True
