"""A connection for one worker alone comes to it, fed or not, and to nobody else, come what may."""

from __future__ import annotations

import socket

import pytest

from sockmgr.programs.dispatcher.events import Timing
from tests.helpers.dispatching import Stage, stage

PATIENT = Timing(take=0.01, replace=1000)


def given(on: Stage, lease: int, key: str = "http") -> socket.socket:
    """Return our end of a connection of which this worker is passed the other."""
    ours, theirs = socket.socketpair()
    on.clients.append(ours)
    on.dispatcher.give(lease, key, [theirs.detach()])
    return ours


def is_ended(client: socket.socket) -> bool:
    client.settimeout(5)
    return client.recv(1) == b""


def test_it_comes_to_a_worker_that_is_not_fed_and_counts_as_its_own() -> None:
    with stage(most=1) as on:
        old, new = on.ready(0), on.ready(1)
        on.feed({0: 1})
        on.connect()
        mine = [given(on, 1) for _ in range(2)]  # more than the most that it is passed
        on.passed(3)
        assert [on.dispatcher.open(0), on.dispatcher.open(1)] == [1, 2]
        taken = new.take()
        for worker, client in zip(taken, mine, strict=True):
            worker.sendall(b"x")
            assert client.recv(9) == b"x"
        new.end(2)
        on.until(lambda: on.dispatcher.open(1) == 0, what="it has said that both are closed")
        assert len(old.take()) == 1


@pytest.mark.parametrize("end", ["detach", "abandon"])
def test_if_the_worker_leaves_before_it_has_taken_it_nobody_gets_it(end: str) -> None:
    with stage() as on:
        old, new = on.ready(0), on.ready(1)
        on.feed({1: 1})
        on.connect(2)
        on.passed(2)
        mine = given(on, 1)
        on.connect(1)
        on.passed(3)
        on.feed({0: 1})
        getattr(on.dispatcher, end)(1)
        on.until(lambda: old.has(3), what="the other has the three of the public")
        assert is_ended(mine)
        assert not new.take()


def test_if_the_worker_takes_nothing_others_get_the_public_and_nobody_gets_it() -> None:
    with stage(timing=PATIENT) as on:
        old = on.ready(0)
        on.ready(1)
        on.feed({1: 1})
        on.connect(2)
        on.passed(2)
        mine = given(on, 1)
        on.feed({0: 1})
        on.until(lambda: old.has(2), what="what waited goes to others")
        assert is_ended(mine)
        assert len(old.taken) == 2


def test_it_ends_if_the_worker_cannot_be_passed_it_now() -> None:
    with stage() as on:
        on.ready(0)
        on.join(1)  # it has not answered yet, so nothing is known of it
        for lease, key in ((1, "http"), (0, "admin"), (7, "http")):
            assert is_ended(given(on, lease, key))
        on.dispatcher.abandon(0)
        assert is_ended(given(on, 0))
