"""A process copies itself so that the copy is its parent's child: who sees what of it."""

from __future__ import annotations

import textwrap

import pytest

from tests.helpers.children import python

WAYS = ("clone", "fork_twice")
# The parent prints its own pid, what it sees of the copy, and the status that it gets.
FAMILY = r"""
import os, random, socket
from sockmgr.kernel import process
from sockmgr.worker import clone
from tests.helpers.refuse import refuse
def say(*words):  # in one piece: several of us speak at a time
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
process.become_subreaper()
random.seed(7)
ours, its = socket.socketpair()
if (template := os.fork()) == 0:
    ours.close()
    try:
{before}
        pid, pidfd = clone.{way}()
    except (clone.RefusedError, OSError) as error:
        say(type(error).__name__, error)
        os._exit(0)
    if pid == 0:
        its.close()
{copy}
        os._exit(0)
    assert not os.get_inheritable(pidfd)
    socket.send_fds(its, [str(pid).encode()], [pidfd])
    say("kept", random.random())
    os._exit(0)
its.close()
data, fds, _, _ = socket.recv_fds(ours, 32, 1)
os.waitpid(template, 0)
if fds:
    say("parent", os.getpid(), "of", int(data))
    assert process.pid_of(fds[0]) == int(data)
    status = os.waitid(os.P_PIDFD, fds[0], os.WEXITED)
    say("status", status.si_pid, status.si_status)
"""


def family(way: str, *, copy: str = "pass", before: str = "pass") -> dict[str, list[str]]:
    """Return by its first word what each line says."""
    blocks = {"copy": textwrap.indent(copy, " " * 8), "before": textwrap.indent(before, " " * 8)}
    with python(FAMILY.format(way=way, **blocks)) as child:
        lines = [line.split() for line in child.rest().splitlines()]
    return {first: rest for first, *rest in lines}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("end", "status"),
    [("os._exit(7)", "7"), ("os.kill(os.getpid(), 9)", "9"), ("os.abort()", "6")],
)
def test_the_parent_is_told_how_a_copy_ended_by_the_pidfd(way: str, end: str, status: str) -> None:
    said = family(way, copy=end)
    assert said["status"] == [said["parent"][2], status]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_the_child_of_the_parent_and_draws_other_random_numbers(way: str) -> None:
    copy = 'say("copy", os.getppid(), random.random())'
    # Made by two forks it may look before the process between has ended.
    wait = "while os.getppid() != parent: os.sched_yield()\n"
    said = family(way, before="parent = os.getppid()", copy=wait + copy)
    assert said["copy"][0] == said["parent"][0]
    assert said["copy"][1] != said["kept"][0]


@pytest.mark.parametrize("way", WAYS)
def test_threads_loops_and_processes_work_in_a_copy_and_its_id_is_its_own(way: str) -> None:
    said = family(
        way,
        copy="""
import asyncio, ctypes, subprocess, threading
async def main():
    say("thread", await asyncio.to_thread(threading.current_thread))
asyncio.run(main())
say("process", subprocess.run(["true"]).returncode)
address = clone._tid_address(ctypes.PyDLL(None))
say("ids", os.getpid(), threading.get_native_id(), ctypes.c_int.from_address(address).value)
""",
    )
    assert said["process"] == ["0"]
    assert "thread" in said
    assert set(said["ids"]) == {said["parent"][2]}


def test_where_clone3_is_refused_that_is_said_and_two_forks_work() -> None:
    before = 'refuse("clone3")'
    said = family("clone", before=before)
    assert said["RefusedError"] == ["clone3(2):", "Function", "not", "implemented"]
    assert family("fork_twice", before=before, copy="os._exit(7)")["status"][1] == "7"


@pytest.mark.parametrize("way", WAYS)
def test_without_room_for_a_process_that_is_an_error_and_nothing_is_left(way: str) -> None:
    before = """
import resource
if os.geteuid() == 0:
    os.setuid(65534)  # for root there is no limit
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
"""
    said = family(way, before=before)
    assert "Resource temporarily unavailable" in " ".join(said["BlockingIOError"])
