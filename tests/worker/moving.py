"""Runtimes that have one listener and one move queue, both held by the test as by a manager."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sockmgr.kernel.notify import NotifySocket
from tests.helpers.children import running
from tests.worker.runtime import PATIENCE, PROGRAMS, Client, Worker

MOVED = {"version": 1, "idle_since": 0.0, "requests": 1}
T = TypeVar("T", bound=contextlib.AbstractContextManager[Any])


@dataclass
class Service:
    """What all workers of a service have, and the workers that run."""

    directory: Path
    listener: socket.socket
    give: socket.socket
    take: socket.socket
    _made: contextlib.ExitStack
    _number: int = field(default=0)

    def worker(self, *options: str, app: str = "edges:app", **env: str) -> Worker:
        """Start a worker, and return when it is ready. It is killed at the end of the test."""
        self._number += 1
        notify = NotifySocket(self.directory / f"notify-{self._number}")
        self._made.callback(notify.close)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(notify.path),
            "SOCKMGR_GIVE_FD": "4",
            "SOCKMGR_TAKE_FD": "5",
            **env,
        }
        child = self._made.enter_context(
            running(
                [sys.executable, "-u", "-P", "-m", "sockmgr.worker", "--fd", "3", *options, app],
                fds=[self.listener.fileno(), self.give.fileno(), self.take.fileno()],
                cwd=str(PROGRAMS),
                env=environment,
            )
        )
        worker = Worker(child, notify, self.listener.getsockname(), self._made)
        worker.hears("READY")
        return worker

    def client(self, *, first: bytes = b"") -> Client:
        """Return a connection to whichever worker accepts it, or to us if there is none."""
        client = Client(self.listener.getsockname(), first=first)
        self._made.callback(client.close)
        return client

    def accept(self) -> int:
        """Accept a connection in a worker's place; return it, borrowed."""
        return self.keep(self.listener.accept()[0]).fileno()

    def keep(self, made: T) -> T:
        """Close this when the test is over."""
        return self._made.enter_context(made)

    def pass_on(self, **told: Any) -> None:
        """Accept a connection, and give it away, of which this is told beside what must be."""
        accepted, _ = self.listener.accept()
        with accepted:
            self.offer(MOVED | told, accepted.fileno())

    def offer(self, message: Any, *fds: int) -> None:
        """Give descriptors, as another worker would; what is no bytes is sent as JSON."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        socket.send_fds(self.give, [data], fds)

    def given(self) -> tuple[dict[str, Any], socket.socket]:
        """Take what a worker gives, where no other worker serves."""
        self.take.settimeout(PATIENCE)
        data, fds, _, _ = socket.recv_fds(self.take, 4096, 2)
        (fd,) = fds
        return json.loads(data), self.keep(socket.socket(fileno=fd))


@contextlib.contextmanager
def service(directory: Path, host: str = "127.0.0.1") -> Iterator[Service]:
    """Open the listener and the queue."""
    give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        give,
        take,
        socket.create_server((host, 0), backlog=512) as listener,
        contextlib.ExitStack() as made,
    ):
        yield Service(directory, listener, give, take, made)
