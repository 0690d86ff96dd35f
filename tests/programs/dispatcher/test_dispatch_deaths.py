"""Dispatchers and workers are killed under load: only what they had in hand is lost.

The workers are the example in C. The test holds what a keeper holds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.programs.dispatcher.channel import Channel
from tests.helpers.children import Child, running, wait_for_exit, wait_until
from tests.helpers.dispatching import listening
from tests.helpers.load import Load, Target

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "dispatch-c" / "worker.c"
DISPATCHER = [sys.executable, "-u", "-m", "tests.helpers.dispatch_process"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, built as its first lines say."""
    built = tmp_path_factory.mktemp("dispatch-c") / "worker"
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(EXAMPLE)], check=True
    )
    return str(built)


class House:
    """A listener, two workers, and dispatchers one after the other."""

    def __init__(self, program: str, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.listener = stack.enter_context(listening())
        self.channels = [stack.enter_context(contextlib.closing(Channel.create())) for _ in "12"]
        self.workers = [
            stack.enter_context(
                running(
                    [program],
                    fds=[channel.theirs],
                    env=os.environ | {"SOCKMGR_DISPATCH_FD": "3"},
                )
            )
            for channel in self.channels
        ]

    def dispatch(self) -> Child:
        """Start a dispatcher, and return it when both workers take connections from it."""
        fds = [self.listener.fileno()]
        for channel, worker in zip(self.channels, self.workers, strict=True):
            fds += [channel.fileno(), channel.theirs, worker.process.pidfd]
        env = os.environ | {"WORKERS": "2"}
        dispatcher = self._stack.enter_context(running(DISPATCHER, fds=fds, env=env, cwd=str(ROOT)))
        assert sorted([dispatcher.line(), dispatcher.line()]) == ["takes 0", "takes 1"]
        return dispatcher

    @property
    def target(self) -> Target:
        return Target(family=socket.AF_INET, address=self.listener.getsockname())


def sockets(pid: int) -> int:
    """Return how many sockets a process has; one is its channel."""
    links = (link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir())
    return sum(str(link).startswith("socket:") for link in links)


@pytest.fixture
def house(program: str) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        yield House(program, stack)


def test_a_worker_in_c_serves_what_it_is_passed_and_drains(house: House) -> None:
    house.dispatch()
    with Load(house.target, ["short:rate=200"]) as load:
        wait_until(lambda: len(load.result.rows) >= 100, what="a hundred requests")
    assert not load.result.failed, load.result.failures()
    shares = [sum(row.pid == worker.pid for row in load.result.rows) for worker in house.workers]
    assert abs(shares[0] - shares[1]) <= 1

    with contextlib.ExitStack() as stack:
        clients = [socket.create_connection(house.target.address) for _ in house.workers]
        for client in clients:
            stack.enter_context(client).settimeout(30)
        for worker in house.workers:
            wait_until(lambda pid=worker.pid: sockets(pid) == 2, what="each has one of them")
            worker.process.signal(signal.SIGTERM)
        for client in clients:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert [wait_for_exit(worker.process) for worker in house.workers] == [0, 0]


def test_dispatchers_that_are_killed_lose_at_most_what_they_had_in_hand(house: House) -> None:
    dispatcher, kills = house.dispatch(), 5
    with Load(house.target, ["short:rate=300"]) as load:
        for _ in range(kills):
            seen = len(load.result.rows)
            wait_until(lambda n=seen: len(load.result.rows) >= n + 50, what="more requests")
            dispatcher.process.signal(signal.SIGKILL)
            wait_for_exit(dispatcher.process)
            dispatcher = house.dispatch()
        seen = len(load.result.rows)
        wait_until(lambda: len(load.result.rows) >= seen + 50, what="more requests")
    # One at a time come in, so a dispatcher has no more than one or two in hand when it dies.
    assert len(load.result.failed) <= 2 * kills, load.result.failures()
    assert {row.pid for row in load.result.rows[-20:]} == {w.pid for w in house.workers}


def test_a_worker_that_is_killed_loses_nothing_that_it_had_not_taken(house: House) -> None:
    dispatcher = house.dispatch()
    victim = house.workers[0]
    with Load(house.target, ["short:rate=200"]) as load:
        wait_until(lambda: len(load.result.rows) >= 50, what="requests")
        victim.process.signal(signal.SIGSTOP)
        wait_until(lambda: house.channels[0].untaken >= 20, what="it leaves some")
        victim.process.signal(signal.SIGKILL)
        assert dispatcher.line() == "gone 0"
        seen = len(load.result.rows)
        wait_until(lambda: len(load.result.rows) >= seen + 50, what="more requests")
    # It was stopped at any moment: perhaps it had one in hand.
    assert len(load.result.failed) <= 1, load.result.failures()
    assert {row.pid for row in load.result.rows[-20:]} == {house.workers[1].pid}


def test_a_worker_that_is_stopped_holds_nobody_up_and_is_used_again(house: House) -> None:
    dispatcher = house.dispatch()
    stopped = house.workers[0]
    with Load(house.target, ["short:rate=100"]) as load:
        wait_until(lambda: len(load.result.rows) >= 20, what="requests")
        stopped.process.signal(signal.SIGSTOP)
        assert "worker takes no connections" in dispatcher.line()
        stopped.process.signal(signal.SIGCONT)
        wait_until(
            lambda: stopped.pid in {row.pid for row in load.result.rows[-5:]}, what="it serves"
        )
    assert not load.result.failed, load.result.failures()
