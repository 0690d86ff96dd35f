"""The HTTP server of `sockmgr metrics`: whoever takes too long does not keep others waiting."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from sockmgr.metrics.server import Limits, MetricsServer

NEVER = 1000.0


@contextlib.contextmanager
def serving(
    limits: Limits, application: WSGIApplication | None = None
) -> Iterator[tuple[str, int]]:
    """Answer in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = MetricsServer(sock, application or make_wsgi_app(CollectorRegistry()), limits)
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


@pytest.mark.parametrize("said", [b"", b"GET /met", b"GET /metrics HTTP/1.0\r\n\r\n"])
def test_however_many_are_slow_the_next_is_answered_and_no_more_threads_run(said: bytes) -> None:
    """They say nothing, or not all, or do not read: nobody has to run out of time first."""
    limits = Limits(threads=5, silence=NEVER, longest=NEVER)
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(serving(limits, big_answer))
        for _ in range(30):
            slow = stack.enter_context(socket.socket())
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(where)
            slow.sendall(said)
        assert answer(where).startswith(b"HTTP/1.0 200 OK\r\n")
        while sum("process_request" in one.name for one in threading.enumerate()) > limits.threads:
            pass  # those whose place was taken are about to end


def big_answer(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
    del environ
    start("200 OK", [])
    return [b"x" * 8_000_000]


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
