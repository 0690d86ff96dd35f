"""Listeners to test, and what their clients and workers do to them."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.queue_drain import QueueDrain

DROP_ALL = b"\x06\0\0\0\0\0\0\0"  # one classic BPF instruction: ret 0


def tcp(host: str = "127.0.0.1", *, scheme: Scheme = Scheme.TCP, backlog: int = 64) -> Listen:
    return Listen(name="http", address=Address(scheme=scheme, host=host), backlog=backlog)


def unix(path: Path) -> Listen:
    return Listen(
        name="http", address=Address(scheme=Scheme.UNIX, path=str(path)), backlog=64, mode=0o600
    )


@contextlib.contextmanager
def opened(listen: Listen) -> Iterator[Listener]:
    with contextlib.closing(opening.bind(listen)) as listener:
        yield listener


def connect(listener: Listener) -> socket.socket:
    address = listener.queues[0].getsockname()
    if listener.listen.address.scheme is Scheme.UNIX:
        address = listener.listen.address.path
    client = socket.socket(listener.queues[0].family)
    client.settimeout(5)
    client.connect(address)
    return client


def hold_handshake(client: socket.socket, address: tuple[str, int]) -> None:
    """Send a SYN, and drop every answer to it until the filter is detached."""
    code = array.array("B", DROP_ALL)
    program = (1).to_bytes(8, sys.byteorder) + code.buffer_info()[0].to_bytes(8, sys.byteorder)
    client.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        client.connect(address)


def take(listener: Listener, lease: int) -> None:
    """Accept and close one connection, as the worker with this lease does."""
    with socket.socket(fileno=os.dup(listener.lease(lease))) as sock:
        sock.settimeout(5)
        sock.accept()[0].close()


async def quiet(listener: Listener, *leases: int) -> None:
    """Return when these queues, which are not fed, are empty and stay so."""
    told: list[int] = []
    await QueueDrain(dict.fromkeys(leases, (listener,)), told.append).run()
    assert sorted(told) == sorted(leases)


def readable(fd: int, timeout: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def open_fds() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}
