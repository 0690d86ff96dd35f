"""What a listener does for one worker costs the same however many queues there are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from sockmgr.kernel import queues
from sockmgr.kernel.steering import classic
from sockmgr.kernel.steering.pool import Choice
from sockmgr.manager.listeners.listener import Listener
from tests.helpers.listeners import connect, opened, quiet, tcp
from tests.helpers.work import calls

FEW, MANY = 50, 500


@contextlib.contextmanager
def fed(size: int) -> Iterator[Listener]:
    with opened(tcp()) as listener:
        listener.lease(size - 1)
        listener.feed(dict.fromkeys(range(size), 1))
        listener.inspect()
        yield listener


def work_of_a_look(size: int) -> int:
    with fed(size) as listener:
        # What Python does on the side, for the first time or now and then, is not of the look.
        return min(calls(lambda: listener.inspect(7)) for _ in range(3))


def work_of_a_look_after_a_renewal(size: int) -> int:
    with fed(size) as listener:
        listener.feed(dict.fromkeys(range(1, size), 1))
        with listener.queues[0].dup():  # as a store has it
            listener.renew(0)
            assert not listener.is_damaged
            return calls(lambda: listener.inspect(7))


def work_of_a_lease(size: int) -> int:
    with fed(size) as listener:
        return calls(lambda: listener.lease(7))


def test_a_look_after_one_worker_costs_the_same_with_many_queues() -> None:
    assert work_of_a_look(MANY) <= work_of_a_look(FEW) < 90


def test_a_lease_that_was_renewed_makes_the_look_after_one_worker_no_dearer() -> None:
    assert work_of_a_look_after_a_renewal(MANY) <= work_of_a_look_after_a_renewal(FEW) < 90


def work_of_a_drain(size: int) -> int:
    """Wait until all queues of a listener that refuses new clients are empty, for each lease."""
    with fed(size) as listener:
        listener.refuse()

        async def scenario() -> None:
            await quiet(listener, *range(size))

        return calls(lambda: asyncio.run(scenario()))


def test_a_drain_of_a_listener_that_refuses_grows_with_the_queues_and_not_with_their_square() -> (
    None
):
    assert work_of_a_drain(400) < 12 * work_of_a_drain(40)


def test_a_lease_that_is_there_costs_the_same_with_many_queues() -> None:
    assert work_of_a_lease(MANY) <= work_of_a_lease(FEW) < 30


def test_a_look_at_one_lease_mends_what_its_worker_did_to_its_own_queue() -> None:
    with fed(3) as listener:
        with socket.socket(fileno=os.dup(listener.lease(1))) as worker:
            worker.listen(5)
        assert listener.inspect(0) == []
        assert ["backlog" in str(found) for found in listener.inspect(1)] == [True]
        assert queues.backlog(listener.queues[1]) == queues.reachable(listener.listen)


def test_a_look_at_one_lease_mends_any_queue_that_was_shut_down() -> None:
    with fed(3) as listener:
        with socket.socket(fileno=os.dup(listener.lease(2))) as worker:
            worker.shutdown(socket.SHUT_RDWR)
        assert listener.is_damaged
        assert len(listener.inspect(0)) == 1
        assert not listener.is_damaged
        assert queues.is_listening(listener.queues[2])


def test_a_queue_that_a_worker_shut_down_and_listens_on_again_is_fed_after_the_next_look() -> None:
    with opened(tcp()) as listener:
        listener.feed({0: 1, 1: 1})
        if listener.choice is not Choice.ROUND_ROBIN:
            pytest.skip("needs CAP_BPF")
        with socket.socket(fileno=os.dup(listener.lease(1))) as worker:
            worker.shutdown(socket.SHUT_RDWR)
            worker.listen(256)
        assert listener.inspect(1) == []
        with contextlib.ExitStack() as clients:
            for _ in range(10):
                clients.enter_context(connect(listener))
            assert [listener.waiting(n) for n in (0, 1)] == [5, 5]


@pytest.mark.parametrize("leases", [(1,), (1, 2)])
def test_a_look_at_one_lease_attaches_our_own_program_again(leases: tuple[int, ...]) -> None:
    with opened(tcp()) as listener:
        listener.lease(2)
        listener.feed(dict.fromkeys(leases, 1))
        listener.inspect()
        for _ in range(2):
            classic.steer(listener.queues[0], classic.choice({0: 1}))
            assert listener.inspect(0) == []
            waiting = listener.waiting(0)
            with socket.create_connection(listener.queues[0].getsockname(), timeout=5):
                assert listener.waiting(0) == waiting == 0
