"""The HTTP server of `sockmgr metrics`: whoever takes too long does not keep others waiting."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from sockmgr.metrics.server import Limits, MetricsServer

NEVER = 1000.0


@contextlib.contextmanager
def serving(limits: Limits) -> Iterator[tuple[str, int]]:
    """Answer in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = MetricsServer(sock, make_wsgi_app(CollectorRegistry()), limits)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                server.handle_request()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()
        finally:
            done.set()
            # Wakes it, and waits for no answer: it may have seen `done` and accept no more.
            socket.create_connection(sock.getsockname()).close()
            thread.join()


def answer(where: tuple[str, int]) -> bytes:
    """Return what a scrape is answered; nothing if it is hung up on."""
    with contextlib.suppress(ConnectionError), socket.create_connection(where) as caller:
        caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: caller.recv(65536), b""))
    return b""


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(threads=1, silence=0.1, longest=NEVER), b""),
        (Limits(threads=1, silence=NEVER, longest=0.1), b"GET /met"),
    ],
)
def test_who_says_nothing_or_takes_too_long_makes_room_for_others(
    limits: Limits, said: bytes
) -> None:
    with serving(limits) as where, socket.create_connection(where) as slow:
        with contextlib.suppress(ConnectionError):
            slow.sendall(said)
        while not answer(where).startswith(b"HTTP/1.0 200 OK\r\n"):  # it has no more time itself
            pass
