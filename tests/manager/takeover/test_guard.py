"""The guard waits for the last copy of the lifeline to be closed, and then ends the workers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel.procfs import member
from sockmgr.manager.takeover.guard import NAME, Guard
from tests.helpers.children import PATIENCE, Child, open_fds, wait_until
from tests.helpers.drainers import draining
from tests.helpers.states import memfd, state, worker

DRAINED = "SIGQUIT\ndrained\n"


@pytest.fixture
def child() -> Iterator[Child]:
    """Return a worker that drains when it is told by QUIT."""
    with draining() as found:
        assert found.line() == "ready"
        yield found


@pytest.fixture
def states(child: Child) -> Iterator[list[int]]:
    """Return two states of which the second tells of the child."""
    found = [memfd(b""), memfd(state([worker(child.pid)], stop_signal=signal.SIGQUIT))]
    yield found
    for fd in found:
        os.close(fd)


@pytest.fixture
def guard(states: list[int]) -> Iterator[Guard]:
    found = Guard()
    found.start(states)
    with watched(found):
        yield found
        found.dismiss()


def still_serves(child: Child) -> bool:
    """Tell whether a child has been told nothing; ends it."""
    child.process.signal(signal.SIGTERM)
    return child.line() == "SIGTERM"


@contextlib.contextmanager
def watched(guard: Guard) -> Iterator[int]:
    """Return a pidfd of the guard that outlives our knowledge of it; reap it in the end."""
    pid = guard.pid
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(pidfd)


def ends(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], PATIENCE)[0])


# --- The lifeline --------------------------------------------------------------------------------


def test_the_workers_are_drained_when_the_lifeline_is_closed(guard: Guard, child: Child) -> None:
    with watched(guard) as pidfd:
        guard.close()
        assert child.rest() == DRAINED
        assert ends(pidfd)


def test_a_guard_can_be_read_in_a_list_of_processes(guard: Guard) -> None:
    shown = Path(f"/proc/{guard.pid}/cmdline")
    # execve(2) lets us go on before they are there.
    wait_until(lambda: shown.read_bytes() != b"", what="the arguments")
    name, *arguments = shown.read_text().split("\0")
    assert name.startswith(NAME)
    assert sys.executable in arguments
    assert max(map(len, arguments)) < 100
    assert "\n" not in "".join(arguments)


def test_the_guard_waits_as_long_as_anybody_holds_our_end(guard: Guard, child: Child) -> None:
    with watched(guard) as pidfd:
        kept = socket.socket(fileno=os.dup(guard.fileno()))  # as the fd store does
        guard.close()
        successor = Guard()
        assert successor.adopt(kept)
        successor.dismiss()  # it hears that, so it was waiting
        assert ends(pidfd)
    assert still_serves(child)


def test_a_guard_that_is_dismissed_ends_at_once_and_ends_nobody(guard: Guard, child: Child) -> None:
    pid = guard.pid
    guard.dismiss()
    assert member(pid) is None
    assert guard.fileno() == -1
    assert still_serves(child)


def test_a_guard_whose_python_is_gone_says_so_and_ends_nobody_outside_of_a_unit(
    states: list[int], child: Child, capfd: pytest.CaptureFixture[str]
) -> None:
    guard = Guard(python="/nowhere/python")
    guard.start(states)
    with watched(guard) as pidfd:
        guard.close()
        assert ends(pidfd)
    assert "/nowhere/python -m sockmgr.programs.sweep failed" in capfd.readouterr().err
    assert still_serves(child)


# --- The process ---------------------------------------------------------------------------------


def test_the_guard_has_its_lifeline_and_the_state_and_inherits_nothing_else(
    guard: Guard, states: list[int]
) -> None:
    directory = Path(f"/proc/{guard.pid}/fd")
    wait_until(lambda: not (directory / "3").exists(), what="its script")
    found = {int(link.name): str(link.readlink()) for link in directory.iterdir()}
    assert sorted(found) == [0, 1, 2, 4, 5]
    assert found[0].startswith("socket:")
    assert found[1] == found[2]
    assert [Path(f"/proc/self/fd/{fd}").stat().st_ino for fd in states] == [
        (directory / name).stat().st_ino for name in ("4", "5")
    ]


def test_the_guard_has_a_name_and_a_session_of_its_own(guard: Guard) -> None:
    found = member(guard.pid)
    assert found is not None
    assert (found.session, found.group) == (guard.pid, guard.pid)
    wait_until(
        lambda: Path(f"/proc/{guard.pid}/cmdline").read_bytes().startswith(NAME.encode()),
        what="its name",
    )


def test_signals_that_are_for_all_do_not_end_the_guard(guard: Guard, child: Child) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT):
        os.kill(guard.pid, number)
    assert guard.alive
    guard.close()
    assert child.rest() == DRAINED


def test_no_descriptor_is_left_of_a_guard(states: list[int]) -> None:
    before = open_fds()
    for _ in range(3):
        guard = Guard()
        guard.start(states)
        guard.dismiss()
    assert open_fds() == before


# --- One manager after another -------------------------------------------------------------------


def test_a_guard_that_was_killed_is_noticed_and_another_takes_its_place(
    guard: Guard, states: list[int], child: Child
) -> None:
    os.kill(guard.pid, signal.SIGKILL)
    assert select.select([guard], [], [], PATIENCE)[0]  # the loop of the manager hears of it
    assert not guard.alive
    guard.start(states)
    assert guard.alive
    with watched(guard):
        guard.close()
        assert child.rest() == DRAINED


def test_the_guard_of_a_predecessor_is_taken_over(guard: Guard, child: Child) -> None:
    with watched(guard) as pidfd:
        left = socket.socket(fileno=os.dup(guard.fileno()))
        guard.close()
        successor = Guard()
        assert successor.adopt(left)
        assert successor.alive
        assert still_serves(child)
        successor.close()
        assert child.rest() == DRAINED
        assert ends(pidfd)


def test_a_guard_of_a_predecessor_that_is_dead_is_not_taken_over(guard: Guard) -> None:
    with watched(guard) as pidfd:
        left = socket.socket(fileno=os.dup(guard.fileno()))
        os.kill(guard.pid, signal.SIGKILL)
        assert ends(pidfd)
        successor = Guard()
        assert not successor.adopt(left)
        assert successor.fileno() == -1


def test_another_guard_replaces_the_one_before_which_ends_nobody(
    guard: Guard, states: list[int], child: Child
) -> None:
    with watched(guard) as pidfd:
        guard.start(states)
        assert ends(pidfd)
    assert still_serves(child)
