"""Who is ended when no manager comes back, how, and who is left alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from sockmgr.fleet.descendants import ASKED_AFTER, HELPER_TIME
from sockmgr.fleet.messages import State
from sockmgr.fleet.snapshot import ProcessSnapshot, Snapshot
from sockmgr.kernel.procfs import Member
from sockmgr.programs.sweep import (
    LAST_WAIT,
    SHORTEST_GRACE,
    Charge,
    Sweep,
    charges_in,
    longest_drain,
)
from tests.helpers.children import python, running, wait_for_exit
from tests.helpers.drainers import DRAINING, draining
from tests.helpers.states import memfd, state, worker

TERM, KILL, QUIT = signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT


# --- Who, and when -------------------------------------------------------------------------------


def process(pid: int, *, parent: int = 1, group: int = 0, started: int = 100) -> Member:
    return Member(pid=pid, parent=parent, group=group or pid, session=1, started=started)


def charge(pid: int, *, started: int = 100, deadline: float = 10.0) -> Charge:
    was = ProcessSnapshot(pid=pid, started=started)
    return Charge(was=was, stop_signal=QUIT, deadline=deadline)


def serves(member: Member) -> bool:
    """Those from pid 100 on have sockets."""
    return member.pid >= 100


def by_pid(*members: Member) -> dict[int, Member]:
    return {member.pid: member for member in members}


def sent(sweep: Sweep, present: dict[int, Member], now: float) -> list[tuple[int, int]]:
    return [(member.pid, number) for member, number in sweep.signals(present, now)]


def test_a_worker_gets_its_own_signal_once_and_is_killed_at_its_own_deadline() -> None:
    present = by_pid(process(7), process(8))
    sweep = Sweep([charge(7, deadline=10), charge(8, deadline=20)], present, 30, 0, serves)
    assert sent(sweep, present, 0) == [(7, QUIT), (8, QUIT)]
    assert sent(sweep, present, 5) == []
    assert sweep.next(5) == 10
    assert sent(sweep, present, 10) == [(7, KILL)]
    assert sweep.next(10) == 20


def test_who_belongs_to_no_worker_gets_term_at_once_and_kill_in_the_end() -> None:
    present = by_pid(process(7), process(9))
    sweep = Sweep([charge(7)], present, 30, 0, serves)
    assert (9, TERM) in sent(sweep, present, 0)
    assert (9, KILL) not in sent(sweep, present, 29)
    assert sent(sweep, by_pid(process(9)), 30) == [(9, KILL)]
    assert sweep.next(30) == sweep.given_up_at == 30 + LAST_WAIT


def test_what_a_worker_has_started_is_left_to_it_while_it_drains_and_killed_with_it() -> None:
    child, grandchild = process(20, parent=7, group=20), process(21, parent=20, group=7)
    mate = process(22, parent=1, group=7)
    present = by_pid(process(7), child, grandchild, mate)
    sweep = Sweep([charge(7, deadline=10)], present, 30, 0, serves)
    assert sent(sweep, present, 0) == [(7, QUIT)]
    assert sorted(sent(sweep, present, 10)) == [(7, KILL), (20, KILL), (21, KILL), (22, KILL)]


def test_helpers_of_a_worker_that_ended_have_a_second_wherever_they_have_gone() -> None:
    present = by_pid(process(7), process(20, parent=7, group=20), process(22, parent=7, group=7))
    sweep = Sweep([charge(7)], present, 30, 0, serves)
    sent(sweep, present, 0)
    left = by_pid(process(20, parent=1, group=20), process(22, parent=1, group=7))
    assert sent(sweep, left, 1) == []
    assert sweep.next(1) == 1 + ASKED_AFTER
    assert sent(sweep, left, 1 + ASKED_AFTER) == [(20, TERM), (22, TERM)]
    assert sent(sweep, left, 1 + HELPER_TIME) == [(20, KILL), (22, KILL)]


def test_who_serves_for_a_worker_that_ended_is_told_once_and_has_the_rest_of_its_time() -> None:
    server = process(100, parent=7, group=7)
    sweep = Sweep([charge(7, deadline=10)], by_pid(process(7), server), 30, 0, serves)
    sent(sweep, by_pid(process(7), server), 0)
    left = by_pid(process(100, parent=1, group=7))
    assert sent(sweep, left, 1) == [(100, QUIT)]
    assert sent(sweep, left, 9) == []
    assert sent(sweep, left, 10) == [(100, KILL)]


def test_a_worker_that_had_ended_before_has_its_time_and_who_was_told_is_not_told_again() -> None:
    told, untold = process(100, group=7), process(101, group=7)
    was = ProcessSnapshot(pid=7, started=100, told=True, told_others=((100, 100),))
    one = Charge(was=was, stop_signal=QUIT, deadline=10)
    sweep = Sweep([one], by_pid(told, untold), 30, 0, serves)
    assert sent(sweep, by_pid(told, untold), 0) == [(101, QUIT)]
    assert sent(sweep, by_pid(told, untold), 10) == [(100, KILL), (101, KILL)]


def test_a_process_that_has_only_the_pid_of_a_worker_is_none() -> None:
    present = by_pid(process(7, started=101))
    sweep = Sweep([charge(7, started=100)], present, 30, 0, serves)
    assert not sweep.workers
    assert sent(sweep, present, 0) == [(7, TERM)]


def test_another_manager_that_was_started_since_keeps_its_processes_and_not_ours() -> None:
    manager, its_worker = process(50, started=900), process(51, parent=50, started=901)
    young = process(20, parent=7, started=902)
    old, fresh = process(9, started=99), process(10, started=950)
    present = by_pid(process(7), manager, its_worker, young, old, fresh)
    sweep = Sweep([charge(7)], present, 30, 0, serves)
    assert sorted(sweep.ours(present, since=800)) == [7, 9, 20]
    assert sweep.ours(present, since=None) == present


def test_without_a_unit_only_workers_and_what_belongs_to_them_are_ours() -> None:
    present = by_pid(process(7), process(20, parent=7), process(9, started=1))
    sweep = Sweep([charge(7)], present, 30, 0, serves)
    assert sorted(sweep.ours(present, since=0.0)) == [7, 20]


@pytest.mark.parametrize(
    ("told", "stage", "deadline", "until"),
    [
        (False, State.READY, 0.0, 130.0),
        (False, State.STARTING, 0.0, 130.0),
        (False, State.DRAINING, 105.0, 130.0),  # it waited for its queue to be empty
        (True, State.DRAINING, 105.0, 105.0),
        (True, State.DRAINING, 90.0, 90.0),
        (True, State.KILLED, 190.0, 100.0),
    ],
)
def test_a_worker_is_told_once_and_keeps_the_time_it_was_given(
    told: bool, stage: State, deadline: float, until: float
) -> None:
    record = worker(7, started=1, told=told, state=stage, deadline=deadline)
    found = list(charges_in(state([record], stop_signal=QUIT), now=100.0))
    assert record.process
    assert found == [Charge(was=record.process, stop_signal=QUIT, deadline=until)]


def test_who_is_not_in_the_state_gets_the_time_of_the_slowest_service() -> None:
    assert longest_drain(state([], drain_timeout=70)) == 70
    assert longest_drain(state([], drain_timeout=0)) == SHORTEST_GRACE


# --- With real processes, which are in no unit ---------------------------------------------------


def sweep(*states: Snapshot | bytes) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with these states."""
    fds = [memfd(one) for one in states]
    try:
        return subprocess.run(
            [sys.executable, "-m", "sockmgr.programs.sweep", *map(str, fds)], pass_fds=fds,
            capture_output=True, text=True, timeout=60, check=False, start_new_session=True,
        )  # fmt: skip
    finally:
        for fd in fds:
            os.close(fd)


def lines(output: str) -> Sequence[str]:
    return output.split()


def test_a_worker_drains_for_as_long_as_it_takes() -> None:
    with draining() as child:
        child.line()
        done = sweep(state([worker(child.pid)], stop_signal=QUIT))
        assert (done.returncode, lines(child.rest())) == (0, ["SIGQUIT", "drained"]), done.stderr
        assert wait_for_exit(child.process) == 0


def test_a_worker_that_does_not_stop_is_killed_with_all_that_descends_from_it() -> None:
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    print(os.getpid())\n"
        "time.sleep(60)\n"
    )
    with python(program) as child:
        other = os.pidfd_open(int(child.line()))
        done = sweep(state([worker(child.pid)], drain_timeout=0.2))
        assert done.returncode == 0, done.stderr
        assert wait_for_exit(child.process) == -KILL
        assert child.rest() == ""  # the other one is dead, too: nobody writes any more
        os.close(other)


def test_what_a_worker_has_started_is_not_told_to_stop_beside_it() -> None:
    with draining("fork") as child:
        assert (child.line(), child.line()) == ("ready", "ready")
        sweep(state([worker(child.pid)], stop_signal=QUIT))
        # It holds no socket, so it is a helper, and is asked when the worker has ended.
        assert lines(child.rest()) == ["SIGQUIT", "drained", "SIGTERM"]


def test_nobody_is_signalled_who_has_only_the_pid_of_a_worker() -> None:
    with draining() as child, draining() as stranger:
        assert (child.line(), stranger.line()) == ("ready", "ready")
        done = sweep(state([worker(child.pid, started=1)]))
        assert done.returncode == 0, done.stderr
        for each in (child, stranger):
            each.process.signal(QUIT)
            assert lines(each.rest()) == ["SIGQUIT", "drained"]


def test_of_two_states_the_one_that_is_whole_counts() -> None:
    with draining() as child:
        child.line()
        done = sweep(b"sockmgr-state 1 2 torn\n", state([worker(child.pid)], stop_signal=QUIT))
        assert done.returncode == 0, done.stderr
        assert lines(child.rest()) == ["SIGQUIT", "drained"]


def test_a_state_that_cannot_be_read_ends_nobody_outside_of_a_unit() -> None:
    with draining() as child:
        child.line()
        done = sweep(b"what is this\n")
        assert done.returncode == 0
        assert "the state cannot be used" in done.stderr
        child.process.signal(QUIT)
        assert lines(child.rest()) == ["SIGQUIT", "drained"]


def test_a_server_whose_wrapper_dies_of_the_stop_signal_finishes() -> None:
    script = f"{sys.executable} {DRAINING} 0.5; echo bye"
    with (
        socket.create_server(("127.0.0.1", 0)) as held,
        running(["/bin/sh", "-c", script], fds=[held.fileno()]) as child,
    ):
        child.line()
        done = sweep(state([worker(child.pid)], stop_signal=QUIT))
        assert done.returncode == 0, done.stderr
        assert lines(child.rest()) == ["SIGQUIT", "drained"]
