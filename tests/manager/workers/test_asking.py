"""A probe that could reach workers of another generation as well is refused before it begins."""

from __future__ import annotations

import socket

import pytest
from msgspec.structs import replace

from sockmgr.config.probe import Healthy, HttpProbe, TcpProbe
from sockmgr.config.spec import Accept, Rollout, Spec
from sockmgr.errors import ListenError
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers import asking
from tests.fleet.story import listening, make_spec

SPEC = replace(make_spec("v1"), listen=listening("http"))
UP = HttpProbe(path="/up")


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (replace(SPEC, ready=UP), "ready"),
        (replace(SPEC, ready=TcpProbe()), "ready"),
        (replace(SPEC, rollout=Rollout(warmup=("/",))), "rollout.warmup"),
        (replace(SPEC, healthy=Healthy(probe=UP), accept=Accept.PER_WORKER), "healthy"),
    ],
)
def test_a_socket_that_is_not_steered_cannot_be_asked_by(spec: Spec, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(spec.listen[0], sock.dup(), "it is root's")
        with pytest.raises(ListenError, match=rf"service\.\w+\.{key} cannot ask .* it is root's"):
            asking.check(spec, [listener])
        assert asking.door(spec, [listener], no_way) is None
        asking.check(replace(spec, accept=Accept.DISPATCH), [listener])
        asking.check(SPEC, [listener])
        listener.close()


async def no_way(listener: Listener) -> socket.socket:
    raise ListenError(f"there is no way to {listener.address}")
