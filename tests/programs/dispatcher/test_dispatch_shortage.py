"""When files, or descriptors on their way, run out: all wait, nothing spins, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.programs.dispatcher.channel import BATCH
from tests.helpers.children import python
from tests.helpers.dispatching import stage


@contextlib.contextmanager
def no_files_left() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_free_descriptor_connections_wait_and_one_line_says_so() -> None:
    with stage() as on:
        worker = on.ready(0)
        on.feed({})
        on.connect(5)
        with no_files_left():
            on.feed({0: 1})
            assert on.turn_for(0.2) < 50  # a spin makes thousands
        on.until(lambda: worker.has(5), what="all are served")
        on.turn_for(0.01)
        assert on.said == [
            "connections wait why=cannot accept: too many open files "
            "means=they are tried again until it works "
            "do=raise LimitNOFILE= or ulimit -n of the manager",
            "connections are passed on again",
        ]


def test_with_little_memory_for_sockets_connections_go_on_as_there_is_room() -> None:
    with stage() as on:
        worker = on.ready(0)
        # Two messages, and no more: the least that the kernel allows is 4608 bytes, socket(7).
        with socket.socket(fileno=os.dup(on.channels[0].fileno())) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for _ in range(40):
            on.connect()
            on.loop.turn(0)
        on.turn_for(0.02)
        assert on.dispatcher.held <= BATCH
        assert not on.misbehaved
        on.until(lambda: worker.has(40), what="all are served")
        assert on.dispatcher.held == 0


PROGRAM = """
import os, resource
from tests.helpers.dispatching import Stage, listening

os.setgroups([]); os.setgid(64321); os.setuid(64321)
with listening() as listener:
    on = Stage({"http": listener})
    workers = [on.ready(lease) for lease in (0, 1, 2)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # More than a batch takes at once, less than three workers leave untaken.
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    print(listener.getsockname()[1], flush=True)
    on.until(lambda: on.dispatcher.held, what="too many are on their way")
    assert on.dispatcher.held <= 64
    woken = on.turn_for(0.2)
    assert woken < 300, woken
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    served = 0
    while served < 170:
        for worker in workers:
            served += len(worker.take())
            worker.end(len(worker.taken))
        on.loop.turn(0.001)
    assert on.dispatcher.held == 0
    print(*on.said, "served", served, flush=True)
    on.close()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root is exempt from the limit, and can cease")
def test_with_too_many_descriptors_on_their_way_connections_wait() -> None:
    root = Path(__file__).parents[3]
    env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    with python(PROGRAM, env=env) as child:
        port = int(child.line())
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(170)]
        words = child.rest()
        for client in clients:
            client.close()
    assert words.count("connections wait") == 1, words
    assert "cannot pass on: too many references: cannot splice" in words
    assert "served 170" in words
