"""What ended workers leave is looked for while it may be there, and no longer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from sockmgr.kernel.procfs import sockets_of
from sockmgr.manager.workers import strays
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.strays import Strays
from tests.helpers.children import python, wait_for_exit, wait_until
from tests.helpers.work import calls

DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
signal.pause()
"""


class Looks(Family):
    """A family without strangers, which counts how often it is asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def strangers(self) -> Sequence[int]:
        self.count += 1
        return ()


def nobody() -> frozenset[int]:
    return frozenset()


@contextlib.contextmanager
def looking(family: Family | None = None) -> Iterator[tuple[Callable[[], None], Strays]]:
    """Yield what was left, and how to look for it, each time in another turn of the loop."""
    # Looks are when the test says: the loop that has their timers does not turn.
    with asyncio.Runner() as runner, contextlib.closing(asyncio.new_event_loop()) as still:
        left = Strays(still, family or Family(), nobody)

        async def end() -> None:
            left.end()

        yield lambda: runner.run(end()), left


@contextlib.contextmanager
def held() -> Iterator[tuple[socket.socket, frozenset[int]]]:
    with socket.socket() as sock:
        yield sock, frozenset({os.fstat(sock.fileno()).st_ino})


def test_sockets_that_nobody_holds_are_forgotten_after_two_looks() -> None:
    looks = Looks()
    with looking(looks) as (look, left):
        for queue in range(100):  # each has a queue of its own, since queues are renewed
            left.add(frozenset({queue}), f"web@{queue}.1")
        look()
        look()
        assert looks.count == 2
        look()
        assert looks.count == 2


def test_a_worker_that_ends_costs_the_same_however_many_ended_before() -> None:
    def work(ended: int) -> int:
        with looking(Looks()) as (_, left):
            for queue in range(ended):
                left.add(frozenset({queue}), f"web@{queue}.1")
            return calls(lambda: left.add(frozenset({-1}), "web@0.1"))

    assert work(500) == work(50)


def test_who_comes_to_hold_a_socket_after_the_first_look_is_killed_at_the_second() -> None:
    with looking() as (look, left), held() as (sock, inodes):
        left.add(inodes, "web@1.1")
        look()
        with python("import signal; signal.pause()", fds=[sock.fileno()]) as child:
            look()
            assert wait_for_exit(child.process) == -signal.SIGKILL


def test_what_was_left_in_another_session_is_killed_too() -> None:
    with (
        looking() as (look, left),
        held() as (sock, inodes),
        python(DAEMON, fds=[sock.fileno()]) as child,
    ):
        daemon = int(child.line())
        left.add(inodes, "web@1.1")
        look()
        assert wait_for_exit(child.process) == -signal.SIGKILL
        wait_until(lambda: not sockets_of(daemon), what="the daemon's end")


def test_who_is_known_is_left_alone() -> None:
    family = Family()
    with (
        looking(family) as (look, left),
        held() as (sock, inodes),
        python("import signal; signal.pause()", fds=[sock.fileno()]) as child,
    ):
        family.join(child.pid)
        left.add(inodes, "web@1.1")
        look()
        assert child.process.poll() is None


def test_a_process_that_has_sockets_for_a_while_after_its_kill_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    monkeypatch.setattr(strays, "kill_holder", lambda *_: True)
    monkeypatch.setattr(strays.log, "warning", lambda *_, pid, **__: told.append(pid))
    with held() as (_, inodes), looking() as (look, left):
        monkeypatch.setattr(left, "_holders", lambda: iter([(7, inodes)]))
        left.add(inodes, "web@1.1")
        look()
        look()
    assert told == [7]
