"""A real `python -m sockmgr.worker` on a socket of ours, and clients that send half of things."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sockmgr.kernel.notify import NotifySocket
from tests.helpers.children import Child, running, wait_for_exit
from tests.helpers.http2 import Http2Client

PROGRAMS = Path(__file__).parent / "programs"
LAST = ("200", True, b"")
KEPT = ("200", False, b"")
PATIENCE = 30.0


class Client:
    """One connection to the worker. What is read is a whole response, or the test fails."""

    def __init__(self, address: tuple[str, int], *, tls: bool = False, first: bytes = b"") -> None:
        """Connect; `first` is what is sent before TLS."""
        self._sock = socket.create_connection(address, timeout=PATIENCE)
        self._data = b""
        self._sock.sendall(first)
        if tls:
            context = ssl.create_default_context(cafile=str(PROGRAMS / "localhost.pem"))
            self._sock = context.wrap_socket(self._sock, server_hostname="localhost")

    @property
    def name(self) -> Any:
        """The address that the worker sees."""
        return self._sock.getsockname()

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def get(self, path: str = "/") -> None:
        """Send a whole request on a connection to be kept."""
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def answer(self) -> tuple[str, bool, bytes]:
        """Return status, whether it says that the connection closes, and the body."""
        head = self.until(b"\r\n\r\n").decode().lower()
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        body = self.exactly(int(fields["content-length"]))
        return status.split()[1], fields.get("connection") == "close", body

    def until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            self._more()
        found, _, self._data = self._data.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        found, self._data = self._data[:size], self._data[size:]
        return found

    def ended(self) -> bool:
        """Wait for the end of the connection; True if it ends in order and nothing is left over."""
        return self._data + self._sock.recv(1) == b""

    def closed(self) -> bool:
        """Wait for the end of the connection, in order or not; True if nothing came before."""
        try:
            return self._data + self._sock.recv(1) == b""
        except ConnectionResetError:  # it was closed with something unread
            return True

    def close(self) -> None:
        self._sock.close()

    def _more(self) -> None:
        piece = self._sock.recv(65536)
        assert piece, f"closed after {self._data!r}"
        self._data += piece


@dataclass
class Worker:
    """The worker, and what it says."""

    child: Child
    notify: NotifySocket
    address: tuple[str, int]
    _clients: contextlib.ExitStack

    def client(self, *, tls: bool = False, first: bytes = b"") -> Client:
        """Return a connection to the worker."""
        client = Client(self.address, tls=tls, first=first)
        self._clients.callback(client.close)
        return client

    def http2(self, *, tls: bool = False, lazy: bool = False, first: bytes = b"") -> Http2Client:
        """Return a connection that speaks HTTP/2."""
        client = Http2Client(self.address, tls=tls, lazy=lazy, first=first)
        self._clients.callback(client.close)
        return client

    def warm(self) -> Client:
        """Return a connection on which a request was answered, and which is kept."""
        client = self.client()
        client.get()
        assert client.answer() == ("200", False, b"")
        return client

    def websocket(self, *, first: bytes = b"") -> Client:
        """Return a connection that has become a WebSocket."""
        client = self.client(first=first)
        client.send(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert b" 101 " in client.until(b"\r\n\r\n")
        return client

    def hears(self, field: str) -> None:
        """Wait until the worker says `field`=1."""
        while True:
            watch = select.poll()
            watch.register(self.notify, select.POLLIN)
            assert watch.poll(PATIENCE * 1000), f"it never said {field}"
            if any(message.fields.get(field) == "1" for message in self.notify.receive()):
                return

    def stop(self) -> None:
        """Tell it to stop; return when it has begun to."""
        self.child.process.signal(signal.SIGTERM)
        self.hears("STOPPING")

    def prints(self, line: str) -> None:
        """Wait until it prints `line`."""
        while (printed := self.child.line()) != line:
            assert printed or self.child.process.peek() is None, f"it never printed {line}"

    def status(self) -> int:
        """Wait for its end, and return its status."""
        return wait_for_exit(self.child.process)


@contextlib.contextmanager
def started(
    directory: Path,
    *options: str,
    app: str = "edges:app",
    cwd: Path = PROGRAMS,
    dual_stack: bool = False,
    more_fds: Sequence[int] = (),
    **env: str,
) -> Iterator[Worker]:
    """Start it; it need not be ready yet. `more_fds` get the numbers from 4 on."""
    if {"--http2", "zttp"}.intersection(options):
        pytest.importorskip("zttp")
    host = ("::", socket.AF_INET6) if dual_stack else ("127.0.0.1", socket.AF_INET)
    notify = NotifySocket(directory / "notify")
    with (
        contextlib.closing(notify),
        socket.create_server(
            (host[0], 0), family=host[1], backlog=64, dualstack_ipv6=dual_stack
        ) as listener,
        contextlib.ExitStack() as clients,
        running(
            [sys.executable, "-u", "-P", "-m", "sockmgr.worker", "--fd", "3", *options, app],
            fds=[listener.fileno(), *more_fds],
            cwd=str(cwd),
            env={**os.environ, "NOTIFY_SOCKET": str(notify.path), **env},
        ) as child,
    ):
        yield Worker(child, notify, ("127.0.0.1", listener.getsockname()[1]), clients)


@contextlib.contextmanager
def serving(directory: Path, *options: str, **more: Any) -> Iterator[Worker]:
    """Start it, and wait until it says that it is ready."""
    with started(directory, *options, **more) as worker:
        worker.hears("READY")
        yield worker
