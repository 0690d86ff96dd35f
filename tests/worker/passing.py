"""A runtime that is passed its connections by the test, and what it reports of them."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.kernel.notify import NotifySocket
from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.ledger import Report
from tests.helpers.children import running
from tests.worker.runtime import PATIENCE, PROGRAMS, Client, Worker


@dataclass
class Passing(Worker):
    """A worker without a listener; its clients' connections are accepted and passed on here."""

    channel: Channel = field(kw_only=True)
    listener: socket.socket = field(kw_only=True)

    def client(self, *, tls: bool = False, first: bytes = b"") -> Client:
        client = super().client(tls=tls, first=first)
        accepted, _ = self.listener.accept()
        with accepted:
            self.channel.send([accepted.fileno()], bytes(1))
        return client

    def reports(self, *, taken: int, closed: int) -> Report:
        """Wait until it reports these numbers."""
        watch = select.poll()
        watch.register(self.channel, select.POLLIN)
        while True:
            assert watch.poll(PATIENCE * 1000), f"it never reported {taken} and {closed}"
            report = self.channel.receive()
            if report and (report.taken, report.closed) == (taken, closed):
                return report


@contextlib.contextmanager
def dispatching(
    directory: Path, *options: str, app: str = "edges:app", **env: str
) -> Iterator[Passing]:
    """Start it; it need not be ready yet."""
    notify = NotifySocket(directory / "notify")
    with (
        contextlib.closing(notify),
        contextlib.closing(Channel.create()) as channel,
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
        contextlib.ExitStack() as clients,
        running(
            [sys.executable, "-u", "-P", "-m", "sockmgr.worker", *options, app],
            fds=[channel.theirs],
            cwd=str(PROGRAMS),
            env={
                **os.environ, "NOTIFY_SOCKET": str(notify.path), "SOCKMGR_DISPATCH_FD": "3",
                "SOCKMGR_DISPATCH_NAMES": "http", **env,
            },
        ) as child,
    ):  # fmt: skip
        yield Passing(
            child, notify, listener.getsockname(), clients, channel=channel, listener=listener
        )
