"""Listeners to test, and what their clients and workers do to them."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from sockmgr.core.model import Address, Listen, Scheme
from sockmgr.listener import Listener


def tcp(host: str = "127.0.0.1", *, scheme: Scheme = Scheme.TCP, backlog: int = 64) -> Listen:
    return Listen(name="http", address=Address(scheme=scheme, host=host), backlog=backlog)


def unix(path: Path) -> Listen:
    return Listen(
        name="http", address=Address(scheme=Scheme.UNIX, path=str(path)), backlog=64, mode=0o600
    )


@contextlib.contextmanager
def opened(listen: Listen) -> Iterator[Listener]:
    with contextlib.closing(Listener.open(listen)) as listener:
        yield listener


def connect(listener: Listener) -> socket.socket:
    address = listener.queues[0].getsockname()
    if listener.listen.address.scheme is Scheme.UNIX:
        address = listener.listen.address.path
    client = socket.socket(listener.queues[0].family)
    client.settimeout(5)
    client.connect(address)
    return client


def take(listener: Listener, lease: int) -> None:
    """Accept and close one connection, as the worker with this lease does."""
    with socket.socket(fileno=os.dup(listener.lease(lease))) as sock:
        sock.settimeout(5)
        sock.accept()[0].close()


def readable(fd: int, timeout: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def open_fds() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}
