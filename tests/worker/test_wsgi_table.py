"""What clients see of a WSGI application is what Gunicorn (gthread) shows them, but for framing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.worker.servers import Server, Talk, serving
from tests.worker.shapes import Seen, Shape, assert_same, request, talk, talk_http2
from tests.worker.wsgi_table import IN_HTTP2, TABLE

GUNICORN = ("gunicorn", "-k", "gthread", "--threads", "2", "--keep-alive", "2", "-b", "fd://3",
            "-b", "fd://4", "--no-control-socket", "wsgi_shapes:app")  # fmt: skip
OURS = ("sockmgr.worker", "wsgi_shapes:app", "--fd", "3", "--fd", "4", "--threads", "2")
Played = tuple[list[Seen], bytes]


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


@pytest.fixture(scope="module")
def oracle(gunicorn: Server) -> Callable[[Shape], Played]:
    """Return what plays a shape to Gunicorn, once."""
    known: dict[str, Played] = {}

    def played(shape: Shape) -> Played:
        if shape.name not in known:
            known[shape.name] = play(gunicorn, shape)
        return known[shape.name]

    return played


@pytest.mark.parametrize("shape", TABLE, ids=lambda shape: shape.name)
def test_a_client_sees_what_gunicorn_shows_and_the_threads_are_free_again(
    shape: Shape, ours: Server, oracle: Callable[[Shape], Played]
) -> None:
    compare(shape, ours, oracle(shape))


@pytest.mark.parametrize("shape", IN_HTTP2, ids=lambda shape: shape.name)
def test_a_client_of_http2_sees_the_same(
    shape: Shape, http2: Server, oracle: Callable[[Shape], Played]
) -> None:
    compare(shape, http2, oracle(shape), talk_http2)


def compare(shape: Shape, ours: Server, oracle: Played, client: Talk = talk) -> None:
    wanted, went_through = oracle
    logged = ours.log.stat().st_size
    seen, events = play(ours, shape, client)
    assert_same(shape, seen, wanted)
    assert events == shape.differs.get("events", [went_through])[0]
    log = ours.log.read_bytes()[logged:]
    assert log.count(b"Exception in ASGI application") == shape.tracebacks, log.decode()
    assert log.count(b"ERROR:") == shape.tracebacks, log.decode()
    assert log.count(b"\nrequest: ") == shape.tracebacks


def play(server: Server, shape: Shape, client: Talk = talk) -> Played:
    """Return the answers, and what the application saw, when both threads are free again."""
    seen = server.answers(shape, client)
    meet = Shape(name="", sends=request("/meet"))
    with ThreadPoolExecutor(2) as pool:
        met = [each.body for (each,) in pool.map(server.answers, [meet, meet])]
    assert met == [b"met", b"met"], "a thread is gone"
    (said,) = server.answers(Shape(name="", sends=request("/events")))
    return seen, said.body
