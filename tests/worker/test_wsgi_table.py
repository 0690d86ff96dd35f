"""What clients see of a WSGI application is what Gunicorn (gthread) shows them, but for framing."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.children import running
from tests.worker.runtime import PROGRAMS
from tests.worker.shapes import Seen, Shape, assert_same, request, talk, talk_http2
from tests.worker.wsgi_table import IN_HTTP2, TABLE

GUNICORN = ("gunicorn", "-k", "gthread", "--threads", "2", "--keep-alive", "2", "-b", "fd://3",
            "-b", "fd://4", "--no-control-socket", "wsgi_shapes:app")  # fmt: skip
OURS = ("sockmgr.worker", "wsgi_shapes:app", "--fd", "3", "--fd", "4", "--threads", "2")
Talk = Callable[[Any, Shape], list[Seen]]


@dataclass
class Server:
    """A server with two threads, at a port and at a path."""

    tcp: Any
    unix: str
    log: Path
    known: dict[str, tuple[list[Seen], bytes]] = field(default_factory=dict)

    def plays(self, shape: Shape, client: Talk = talk) -> tuple[list[Seen], bytes]:
        """Return the answers, and what the application saw, when both threads are free again."""
        seen = client(self.unix if shape.unix else self.tcp, shape)
        meet = Shape(name="", sends=request("/meet"))
        with ThreadPoolExecutor(2) as pool:
            met = [each.body for (each,) in pool.map(talk, [self.tcp] * 2, [meet] * 2)]
        assert met == [b"met", b"met"], "a thread is gone"
        (said,) = talk(self.tcp, Shape(name="", sends=request("/events")))
        return seen, said.body


@contextlib.contextmanager
def serving(directory: Path, *argv: str) -> Iterator[Server]:
    directory.mkdir(exist_ok=True)
    log, path = directory / "log", str(directory / "sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(path, family=socket.AF_UNIX) as unix,
        log.open("wb") as written,
    ):
        launch = [sys.executable, "-u", "-P", "-c", _LAUNCH, *argv]
        fds = [tcp.fileno(), unix.fileno(), written.fileno()]
        with running(launch, fds=fds, cwd=str(PROGRAMS), env={**os.environ, "PYTHONPATH": "."}):
            yield Server(tcp.getsockname(), path, log)


# What it prints goes to a file, so that nobody need read it.
_LAUNCH = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
os.dup2(5, 1), os.dup2(5, 2), os.close(5)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("gunicorn"), *GUNICORN) as server:
        yield server


@pytest.fixture(scope="module", params=["httptools", "h11", "zttp"])
def ours(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp(request.param)
    with serving(directory, *OURS, "--http", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def http2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("http2"), *OURS, "--http2") as server:
        yield server


@pytest.mark.parametrize("shape", TABLE, ids=lambda shape: shape.name)
def test_a_client_sees_what_gunicorn_shows_and_the_threads_are_free_again(
    shape: Shape, ours: Server, gunicorn: Server
) -> None:
    compare(shape, ours, gunicorn, talk)


@pytest.mark.parametrize("shape", IN_HTTP2, ids=lambda shape: shape.name)
def test_a_client_of_http2_sees_the_same(shape: Shape, http2: Server, gunicorn: Server) -> None:
    compare(shape, http2, gunicorn, talk_http2)


def compare(shape: Shape, ours: Server, gunicorn: Server, talk: Talk) -> None:
    if shape.name not in gunicorn.known:
        gunicorn.known[shape.name] = gunicorn.plays(shape)
    expected, went_through = gunicorn.known[shape.name]
    logged = ours.log.stat().st_size
    seen, events = ours.plays(shape, talk)
    assert_same(shape, seen, expected)
    assert events == shape.differs.get("events", [went_through])[0]
    log = ours.log.read_bytes()[logged:]
    assert log.count(b"Exception in ASGI application") == shape.tracebacks, log.decode()
    assert log.count(b"\nrequest: ") == shape.tracebacks
