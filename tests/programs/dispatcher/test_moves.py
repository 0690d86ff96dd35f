"""The dispatcher takes what workers give away: connections of the service, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from sockmgr.programs.dispatcher.channel import Passed
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.moves import MoveQueues, Told
from tests.helpers.children import open_fds


class Taking:
    """A dispatcher that passes nothing on, and a queue that it takes from."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener, self.sources = listener, SimpleNamespace(keys={listener: "http"})
        self.free, self.passed, self.said = 9, list[tuple[str, int]](), list[str]()
        self.loop, self.told = Loop(), Told()
        self.queues = MoveQueues(self.loop, self, self.told, self._say)  # type: ignore[arg-type]
        self.give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.queues.add(take.detach())

    def room(self, key: str, limit: int) -> int:
        assert key == "http"
        return min(self.free, limit)

    def pass_on(self, key: str, fds: Sequence[int]) -> None:
        self.passed += ((key, fd) for fd in fds)

    def _say(self, _level: str, _event: str, **fields: Any) -> None:
        self.said.append(fields["why"])

    def send(self, *fds: int, data: bytes = b"told") -> None:
        socket.send_fds(self.give, [data], list(fds))
        self.loop.turn(0)

    def close(self) -> None:
        for _, fd in self.passed:
            os.close(fd)
        self.queues.close()
        self.give.close()
        self.loop.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def taking(stack: ExitStack) -> Taking:
    made = Taking(stack.enter_context(socket.create_server(("127.0.0.1", 0))))
    stack.callback(made.close)
    return made


def accepted(stack: ExitStack, listener: socket.socket) -> socket.socket:
    stack.enter_context(socket.create_connection(listener.getsockname()))
    return stack.enter_context(listener.accept()[0])


def test_a_connection_is_passed_on_with_what_was_told_of_it(
    taking: Taking, stack: ExitStack
) -> None:
    taking.send(accepted(stack, taking.listener).fileno())
    [(key, fd)] = taking.passed
    assert key == "http"
    assert fd in taking.told
    [again] = taking.told.of([Passed(fd, 0)])
    assert again.fd == fd


def test_what_is_no_connection_of_the_service_is_closed_and_told_once(
    taking: Taking, stack: ExitStack
) -> None:
    other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    good = accepted(stack, taking.listener)
    makers: tuple[Callable[[], list[int]], ...] = (
        list,
        lambda: [good.fileno()] * 2,
        lambda: [0],
        lambda: [taking.listener.fileno()],
        lambda: [accepted(stack, other).fileno()],
    )
    for maker in makers:
        fds = maker()
        before = open_fds()
        taking.send(*fds)
        assert open_fds() == before
    assert taking.passed == []
    assert taking.said == ["0 descriptors came with it"]  # the next in ten seconds


def test_it_takes_no_more_than_can_be_passed_on_and_goes_on_when_there_is_room(
    taking: Taking, stack: ExitStack
) -> None:
    taking.free = 0
    for _ in range(2):
        taking.send(accepted(stack, taking.listener).fileno())
    assert taking.passed == []
    taking.queues.go()
    taking.loop.turn(0)
    assert taking.passed == []
    taking.free = 9
    taking.queues.go()
    taking.loop.turn(0)
    taking.loop.turn(0)
    assert len(taking.passed) == 2


def test_at_rest_it_takes_nothing_and_what_comes_waits(taking: Taking, stack: ExitStack) -> None:
    taking.queues.rest()
    taking.send(accepted(stack, taking.listener).fileno())
    assert taking.passed == []
    taking.queues.go()
    taking.loop.turn(0)
    assert len(taking.passed) == 1


def test_a_queue_that_was_ended_is_let_go(taking: Taking) -> None:
    taking.give.shutdown(socket.SHUT_RDWR)
    before = open_fds()
    taking.loop.turn(0)
    assert len(open_fds()) == len(before) - 1
