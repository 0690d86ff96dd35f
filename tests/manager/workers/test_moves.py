"""The queues of a service: who shares one, when it is ended, and what the next manager adopts."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.manager.workers.moves import MoveQueue, Moves
from tests.fleet.story import make_spec


def spec(*ports: int, moves: str = "http"):  # type: ignore[no-untyped-def]
    listens = tuple(
        Listen(name=f"l{n}", address=Address(scheme=Scheme.TCP, host="127.0.0.1", port=n))
        for n in ports
    )
    return replace(make_spec("v1"), listen=listens, moves=moves)


@pytest.fixture
def moves() -> Iterator[Moves]:
    made = Moves("web")
    yield made
    made.keep(())


def is_ended(queue: MoveQueue) -> bool:
    return queue.take.fileno() < 0


def test_those_share_a_queue_who_can_go_on_with_each_others_connections(moves: Moves) -> None:
    first = moves.of(spec(80, 81))
    assert first
    assert moves.of(spec(81, 80)) is first
    assert moves.of(spec(80)) is not first
    assert moves.of(spec(80, 81, moves="h2")) is not first
    assert moves.of(spec(80, 81, moves="")) is None


def test_a_queue_ends_when_nobody_takes_from_it_and_those_who_have_it_see_that(
    moves: Moves,
) -> None:
    old, new = moves.of(spec(80)), moves.of(spec(81))
    assert old
    assert new
    with socket.socket(fileno=os.dup(old.give.fileno())) as of_worker:
        assert moves.keep([spec(81), spec(80, moves="")])
        assert is_ended(old)
        assert not is_ended(new)
        watch = select.poll()
        watch.register(of_worker, select.POLLRDHUP)
        assert watch.poll(0)
        with pytest.raises(BrokenPipeError):
            of_worker.send(b"x")
    assert not moves.keep([spec(81)])


def test_the_next_manager_adopts_whole_queues_alone(moves: Moves) -> None:
    queue = moves.of(spec(80))
    assert queue
    left = {name: [os.dup(fd)] for name, fd in moves.descriptors.items()}
    half = {f"web@moves-{'0' * 12}/give": [os.dup(queue.give.fileno())], "web@1.1/pidfd": [7]}
    left |= half
    following = Moves("web")
    following.adopt(left)
    assert left == {"web@1.1/pidfd": [7]}
    assert following.descriptors.keys() == moves.descriptors.keys()
    assert following.inodes == moves.inodes
    taken = following.of(spec(80))
    assert taken
    assert not os.get_inheritable(taken.take.fileno())
    queue.give.send(b"one")
    assert taken.take.recv(9) == b"one"
    following.keep(())


def test_the_next_manager_adopts_no_queue_that_was_ended_in_the_moment_of_the_death(
    moves: Moves,
) -> None:
    assert moves.of(spec(80))
    left = {name: [os.dup(fd)] for name, fd in moves.descriptors.items()}
    moves.keep(())
    following = Moves("web")
    following.adopt(left)
    assert not left
    assert not following.descriptors
    fresh = following.of(spec(80))
    assert fresh
    fresh.give.send(b"one")
    assert fresh.take.recv(9) == b"one"
    following.keep(())
