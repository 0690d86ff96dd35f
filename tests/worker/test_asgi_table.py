"""What clients see of an ASGI application is what uvicorn shows them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worker.asgi_table import TABLE
from tests.worker.servers import Server, serving
from tests.worker.shapes import Shape, assert_same, request

APP = "asgi_shapes:app"


@pytest.fixture(scope="module", params=["httptools", "h11", "zttp"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server, Server]]:
    """Run ours, and uvicorn at the port and at the path: it takes one socket."""
    how = ("--http", request.param)
    place = tmp_path_factory.mktemp
    with (
        serving(place("ours"), "sockmgr.worker", APP, "--fd", "3", "--fd", "4", *how) as ours,
        serving(place("tcp"), "uvicorn", APP, "--fd", "3", *how) as tcp,
        serving(place("unix"), "uvicorn", APP, "--fd", "4", *how) as unix,
    ):
        yield ours, tcp, unix


@pytest.mark.parametrize("shape", TABLE, ids=lambda shape: shape.name)
def test_a_client_sees_what_uvicorn_shows_and_the_request_is_over(
    shape: Shape, servers: tuple[Server, Server, Server]
) -> None:
    ours, tcp, unix = servers
    oracle = unix if shape.unix else tcp
    wanted, went_through = play(oracle, shape)
    seen, events = play(ours, shape)
    assert_same(shape, seen, wanted)
    assert events == went_through


def play(server: Server, shape: Shape) -> tuple[list, bytes]:
    seen = server.answers(shape)
    (idle,) = server.answers(Shape(name="", sends=request("/idle"), unix=shape.unix))
    return seen, idle.body
