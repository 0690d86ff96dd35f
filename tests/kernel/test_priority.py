"""Lowering the priority of real processes, in their session and beside others, and undoing it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sockmgr.kernel.priority import (
    LOW,
    can_restore,
    demand,
    is_low,
    lower,
    lower_session,
    restore,
    restore_session,
)
from tests.helpers.children import python, wait_for_exit, wait_until

SPIN = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
while True: pass
"""
PR_SET_DUMPABLE = 4
CHANGES = 5  # more than the kernel allows an ordinary user in one instant


def nice_of(pid: int) -> list[int]:
    """Return the nice value of each thread."""
    stats = (thread / "stat" for thread in Path(f"/proc/{pid}/task").iterdir())
    return [int(stat.read_text().rsplit(")")[-1].split()[16]) for stat in stats]


@pytest.mark.skipif(not can_restore(), reason="priority can only be lowered here")
def test_a_lowered_priority_is_restored_for_threads_children_and_other_groups() -> None:
    program = """
import os, signal, threading
os.read(3, 1)
threading.Thread(target=signal.pause, daemon=True).start()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        print(os.getpid(), os.getppid())
    signal.pause()
signal.pause()
"""
    reader, writer = os.pipe()
    normal = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        with python(program, fds=[reader]) as child:
            lower(child.pid)
            os.write(writer, b"\n")
            family = [child.pid, *map(int, child.line().split())]
            try:
                nices = [nice for pid in family for nice in nice_of(pid)]
                assert nices == [LOW] * 4
                restore(child.pid)
                assert [nice for pid in family for nice in nice_of(pid)] == [normal] * 4
            finally:
                os.kill(family[1], signal.SIGKILL)
    finally:
        os.close(reader)
        os.close(writer)
    assert os.getpriority(os.PRIO_PROCESS, 0) == normal


def test_asking_whether_priority_can_be_restored_leaves_our_own_alone() -> None:
    normal = os.getpriority(os.PRIO_PROCESS, 0)
    can_restore()
    assert os.getpriority(os.PRIO_PROCESS, 0) == normal


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_an_ordinary_user_is_told_that_it_cannot_restore_priority() -> None:
    pid = os.fork()
    if pid == 0:
        code = 3
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
            os.setuid(65534)
            code = 0 if can_restore() is False else 4
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_priority_of_a_process_that_is_gone_is_no_error() -> None:
    with python("pass") as child:
        wait_for_exit(child.process)
        lower(child.pid)
        restore(child.pid)


def test_a_low_priority_is_seen_and_that_of_an_ended_process_is_not_low() -> None:
    with python("import signal; signal.pause()") as child:
        assert not is_low(child.pid)
        lower(child.pid)
        assert is_low(child.pid)
    assert not is_low(child.pid)


# --- Beside other sessions ------------------------------------------------------------------------


@contextlib.contextmanager
def sessions(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run programs that compute on one processor, each in a session of its own."""
    children = [
        subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(count)
    ]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def autogroup() -> bool:
    try:
        return Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"
    except FileNotFoundError:
        return False


needs_autogroup = pytest.mark.skipif(not autogroup(), reason="the kernel does not group sessions")


@needs_autogroup
def test_a_low_session_gets_what_others_leave_of_a_processor_and_a_restored_one_its_half() -> None:
    with sessions(2) as (serves, boots):
        assert lower_session(boots.pid)
        gets_along(serves.pid, boots.pid, lambda serving, booting: booting < serving / 2)
        assert restore_session(boots.pid)
        gets_along(serves.pid, boots.pid, lambda serving, booting: booting > serving / 2)


def gets_along(serves: int, boots: int, as_it_should: Callable[[float, float], bool]) -> None:
    """Wait until both together have run for a while, and compare what each had."""
    began = demand(serves).ran, demand(boots).ran
    wait_until(lambda: demand(serves).ran + demand(boots).ran - sum(began) > 0.5, what="both ran")
    serving, booting = demand(serves).ran - began[0], demand(boots).ran - began[1]
    assert as_it_should(serving, booting), (serving, booting)


@needs_autogroup
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_sessions_of_an_ordinary_user_are_restored_as_soon_as_the_kernel_allows_it() -> None:
    pid = os.fork()
    if pid == 0:
        code = 3
        with contextlib.suppress(BaseException):
            os.setuid(65534)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)  # which an exec would set, proc(5)
            code = low_and_restored()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def low_and_restored() -> int:
    """Lower as many of our own sessions as we may; return 0 if all are as before in the end."""
    children = []
    for _ in range(CHANGES):
        if (child := os.fork()) == 0:
            os.setsid()
            signal.pause()
        children.append(child)
    wait_until(lambda: all(os.getsid(pid) == pid for pid in children), what="sessions")
    # The kernel counts the changes of all users, so others may have had those of this instant.
    first, *others = children
    wait_until(partial(lower_session, first), what="lowered")
    for child in [first, *(child for child in others if lower_session(child))]:
        wait_until(partial(restore_session, child), what="restored")
    nices = [Path(f"/proc/{child}/autogroup").read_text().split()[-1] for child in children]
    for child in children:
        os.kill(child, signal.SIGKILL)
    return 0 if nices == ["0"] * CHANGES else 4


def test_a_process_that_leads_no_session_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not lower_session(child.pid)
        child.kill()


def test_the_session_of_a_process_that_is_gone_is_no_error() -> None:
    with sessions(1) as (child,):
        pass
    assert not lower_session(child.pid)
    assert restore_session(child.pid)


# --- What a process had and lacked ----------------------------------------------------------------


def test_what_a_launcher_had_of_the_processors_counts_what_its_server_had() -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True) as child:
        try:
            wait_until(lambda: demand(child.pid).ran > 1.0, what="the server ran")
        finally:
            os.killpg(child.pid, signal.SIGKILL)
