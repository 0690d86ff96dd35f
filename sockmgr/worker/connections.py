"""Take connections that the manager accepted: the worker's side of docs/dispatch-protocol.md.

    connections = Connections.inherited()
    for connection in connections:  # or: await connections.serve(handle)
        with connection:
            ...

Owns the channel. A connection belongs to whoever took it; closing it is what the manager is told.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

FD_VARIABLE = "SOCKMGR_DISPATCH_FD"
NAMES_VARIABLE = "SOCKMGR_DISPATCH_NAMES"
PACE_VARIABLE = "SOCKMGR_DISPATCH_PACE"
PACE = 0.001

_MAX_FDS = 253  # in one message: SCM_MAX_FD, unix(7)
_QUESTION = struct.Struct("=BQ")
_ASKED = 255
_REPORT = struct.Struct("=QQQQ")
_ROOM = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)

_log = logging.getLogger("sockmgr.worker")


class Connection(socket.socket):
    """A connection from the listener named `listener`. It has ended when closed or detached."""

    __slots__ = ("_on_end", "listener", "moved")

    def __init__(
        self, kind: tuple[int, int, int], fd: int, listener: str, on_end: Callable[[], None]
    ) -> None:
        """Own `fd`, a socket of this family, type and protocol."""
        super().__init__(*kind, fileno=fd)
        self.listener = listener
        self.moved = b""  # what another worker told of it that had it before: moves.md
        self._on_end: Callable[[], None] | None = on_end

    def close(self) -> None:
        """Close it, and tell the manager that there is room for another one."""
        super().close()
        self._end()

    def detach(self) -> int:
        """Give the descriptor away: for the manager, that is the end of this connection."""
        fd = super().detach()  # uvloop ends its connections so
        self._end()
        return fd

    def _end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end:
            on_end()


class Connections:
    """The channel to the manager, and the account of what came through it. Safe in threads."""

    def __init__(self, fd: int, names: Sequence[str] = (), pace: float = PACE) -> None:
        """Own the channel `fd`; `names` are those of the listeners, by number.

        A busy event loop reports what was closed once in `pace` seconds.
        """
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
        self._channel.setblocking(False)
        self._names = tuple(names)
        self._kinds: dict[int, tuple[int, int, int]] = {}
        self._lock = threading.Lock()
        self._answered = self._taken = self._closed = self._lost = 0
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = self._due = False
        self.ended = False  # nothing more will come: after stop(), or as no manager can come back
        self._pace, self._reported_at = pace, -pace
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    @classmethod
    def inherited(cls) -> Connections | None:
        """Own the channel that this process was started with; None if there is none.

        The variables that told of it are removed: a child has another or none.
        """
        fd, names = os.environ.pop(FD_VARIABLE, ""), os.environ.pop(NAMES_VARIABLE, "")
        pace = os.environ.pop(PACE_VARIABLE, "")
        if not fd:
            return None
        os.set_inheritable(int(fd), False)
        return cls(int(fd), names.split(":") if names else (), int(pace) / 1000 if pace else PACE)

    def fileno(self) -> int:
        """Return the descriptor of the channel, borrowed, to wait on: then call take()."""
        return self._channel.fileno()

    def take(self) -> list[Connection]:
        """Return what the next message brings, without waiting: [] if nothing new is there."""
        while True:
            with self._lock:
                data, fds = self._receive()
                if not data:
                    return []
                if data[0] == _ASKED:
                    self._answered = _QUESTION.unpack(data)[1]
                    self._report()
                    continue
                self._taken += len(data)
                if len(fds) < len(data):
                    self._lose(len(data) - len(fds))
            found = [self._open(fd, number) for fd, number in zip(fds, data, strict=False)]
            if len(fds) > len(data):
                found[-1].moved = _read(fds[-1])
            return found

    def __iter__(self) -> Iterator[Connection]:
        """Wait for connections, which block, until stop() is called and none is left.

        A program that serves one at a time should have `max_connections = 1`: what is taken here
        no other worker can have.
        """
        waiter = select.poll()
        waiter.register(self, select.POLLIN)
        waiter.register(self._stop, select.POLLIN)
        while True:
            taken = self.take()
            yield from taken
            if not taken:
                if self.ended:
                    return
                waiter.poll()

    def start(
        self, take: Callable[[Connection], None], over: Callable[[], None] | None = None
    ) -> None:
        """Give each connection, which does not block, to `take`, on the running event loop.

        `over` is called when nothing more will come: see stop().
        """
        self._loop = loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

        def bring() -> None:
            for connection in self.take():
                connection.setblocking(False)
                take(connection)
            if self.ended:
                self._leave_loop()
                if over:
                    over()

        loop.add_reader(self, bring)
        loop.add_reader(self._stop, bring)

    async def serve(self, handle: Callable[[Connection], Awaitable[None]]) -> None:
        """Run `handle` for each connection, which does not block, until stop() and all are done.

        A connection that `handle` leaves open is closed.
        """
        tasks: set[asyncio.Task[None]] = set()
        over = asyncio.Event()

        def take(connection: Connection) -> None:
            task = asyncio.create_task(_handle(handle, connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        self.start(take, over.set)
        try:
            await over.wait()
            while tasks:
                await asyncio.wait(tasks)
        finally:
            self._leave_loop()
            for task in tasks:
                task.cancel()

    def stop(self) -> None:
        """Take what has come, and no more. For signal handlers and other threads, too."""
        self._stopping = True
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Close the channel. What was taken goes on, and is not told of any more."""
        self._leave_loop()
        with self._lock:
            self._channel.close()
            stop, self._stop = self._stop, -1
        if stop >= 0:
            os.close(stop)

    def end_one(self) -> None:
        """Tell the manager that one more has ended; a Connection does that by itself."""
        with self._lock:
            self._closed += 1
            if self._loop is None or self._thread != threading.get_ident():
                self._report()
            elif not self._due:
                # At once where little happens; else one for all that end in a while, for each
                # wakes the manager.
                self._due = True
                pause = self._reported_at + self._pace - time.monotonic()
                if pause > 0:
                    self._loop.call_later(pause, self._report_due)
                else:
                    self._loop.call_soon(self._report_due)

    # Private

    def _receive(self) -> tuple[bytes, array.array[int]]:
        fds = array.array("i")
        try:
            data, ancillary, _, _ = self._channel.recvmsg(_MAX_FDS, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            self.ended = self.ended or self._stopping
            return b"", fds
        except ConnectionResetError:  # the manager died with reports unread: told only once
            return self._receive()
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        self.ended = self.ended or not data
        return data, fds

    def _open(self, fd: int, number: int) -> Connection:
        kind = self._kinds.get(number)
        if kind is None:  # three system calls, once for each listener
            sock = socket.socket(fileno=fd)
            kind = self._kinds[number] = (sock.family, sock.type, sock.proto)
            sock.detach()
        name = self._names[number] if number < len(self._names) else str(number)
        return Connection(kind, fd, name, self.end_one)

    def _lose(self, count: int) -> None:
        # MSG_CTRUNC: at RLIMIT_NOFILE the kernel drops the rest without an error, recvmsg(2).
        self._lost += count
        _log.error("%d connections lost: this process may open no more files", count)
        self._report()

    def _leave_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop:
            loop.remove_reader(self)
            loop.remove_reader(self._stop)
            self._report_due()

    def _report_due(self) -> None:
        with self._lock:
            if self._due:
                self._report()

    def _report(self) -> None:
        self._due, self._reported_at = False, time.monotonic()
        report = _REPORT.pack(self._answered, self._taken, self._closed, self._lost)
        # Where nobody reads it now, the next one says the same and more.
        with contextlib.suppress(OSError):
            self._channel.send(report)


def _read(memfd: int) -> bytes:
    with open(memfd, "rb") as told:
        told.seek(0)
        return told.read()


async def _handle(handle: Callable[[Connection], Awaitable[None]], connection: Connection) -> None:
    with connection:
        try:
            await handle(connection)
        except Exception:
            _log.exception("connection failed")
