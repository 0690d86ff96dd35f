"""What a program is given and can say through sockmgr.worker, with a manager and without."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel.notify import NotifySocket
from sockmgr.worker import heartbeat
from tests.helpers.children import python

SHOWN = "print([s.getsockname()[1] for s in worker.listeners({name})], flush=True)"


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    sock = NotifySocket(tmp_path / "notify")
    yield sock
    sock.close()


def run(program: str, *, pass_fds: tuple[int, ...] = (), **env: str) -> str:
    """Run a program that has `worker`; return what it prints, on both streams."""
    return subprocess.run(
        [sys.executable, "-c", f"import os\nfrom sockmgr import worker\n{program}"],
        env={"PATH": os.environ["PATH"], **env},
        pass_fds=pass_fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    ).stdout.strip()


def with_sockets(program: str, *socks: socket.socket, **env: str) -> str:
    """Run it with `socks` as 3, 4, ..., as the manager does; LISTEN_PID is its own unless given."""
    with python(
        f"from sockmgr import worker\n{program}",
        fds=[sock.fileno() for sock in socks],
        env={"PATH": os.environ["PATH"], "LISTEN_FDS": str(len(socks)), **env},
        set_listen_pid="LISTEN_PID" not in env,
    ) as child:
        return child.rest().strip()


# --- Sockets -----------------------------------------------------------------------------------


def test_listeners_are_given_in_order_and_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ports = [a.getsockname()[1], b.getsockname()[1]]
        names = {"LISTEN_FDNAMES": "http:admin"}
        assert with_sockets(SHOWN.format(name=""), a, b, **names) == str(ports)
        assert with_sockets(SHOWN.format(name="'admin'"), a, b, **names) == str(ports[1:])
        assert with_sockets(SHOWN.format(name="'other'"), a, b, **names) == "[]"
        assert with_sockets(SHOWN.format(name="'unknown'"), a, b) == str(ports)


def test_listeners_are_the_same_objects_each_time_and_are_not_passed_on() -> None:
    program = """
(one,), (two,) = worker.listeners(), worker.listeners()
print(one is two, one.get_inheritable())
"""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert with_sockets(program, sock) == "True False"


def test_sockets_that_were_meant_for_another_process_are_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert with_sockets(SHOWN.format(name=""), sock, LISTEN_PID="1") == "[]"


def test_an_announced_socket_that_is_none_is_an_error_that_names_the_descriptor() -> None:
    assert "descriptor 3 was announced as a socket" in run("worker.listeners()", LISTEN_FDS="1")


def test_without_a_manager_each_call_does_nothing_and_says_so() -> None:
    calls = "listeners(), worker.ready(), worker.status('x'), worker.stopping(), worker.watchdog()"
    assert run(f"print(worker.{calls})") == "[] False False False None"


# --- What is said ------------------------------------------------------------------------------


def test_what_is_said_arrives_with_the_pid_of_who_said_it(notify: NotifySocket) -> None:
    told = run(
        "print(worker.ready('up'), worker.status('half\\nway'), worker.stopping(), os.getpid())",
        NOTIFY_SOCKET=str(notify.path),
    )
    pid = int(told.removeprefix("True True True "))
    heard = []
    while select.select([notify], [], [], 0)[0]:
        heard += notify.receive()
    assert [message.fields for message in heard] == [
        {"READY": "1", "STATUS": "up"},
        {"STATUS": "half way"},
        {"STOPPING": "1"},
    ]
    assert {message.pid for message in heard} == {pid}


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert run("print(worker.ready())", NOTIFY_SOCKET=str(tmp_path / "gone")) == "False"


# --- The heartbeat -----------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create(heartbeat.NAME, os.MFD_CLOEXEC)
    os.truncate(fd, heartbeat.SIZE)
    yield fd
    os.close(fd)


def words(memory: int) -> tuple[int, ...]:
    return struct.unpack("@4q", os.pread(memory, heartbeat.SIZE, 0))


def test_a_beat_is_an_instant_in_memory_that_the_manager_can_read(memory: int) -> None:
    before = time.monotonic_ns()
    told = run(
        "print(worker.watchdog(), os.getpid())",
        pass_fds=(memory,),
        SOCKMGR_HEARTBEAT=f"{memory}:8",
    )
    beat, number, pid, _ = words(memory)
    assert told == f"2.0 {pid}"
    assert before < beat < time.monotonic_ns()
    assert number == heartbeat.STACKS_SIGNAL


def test_on_the_signal_that_the_memory_names_the_stacks_are_printed(memory: int) -> None:
    program = "def stuck():\n    os.kill(os.getpid(), {})\nworker.watchdog()\nstuck()"
    told = run(
        program.format(int(heartbeat.STACKS_SIGNAL)),
        pass_fds=(memory,),
        SOCKMGR_HEARTBEAT=f"{memory}:8",
    )
    assert "in stuck" in told


def test_a_program_that_uses_the_signal_itself_keeps_it(memory: int) -> None:
    program = f"import signal\nsignal.signal({signal.SIGRTMIN + 8}, print)\nworker.watchdog()"
    run(program, pass_fds=(memory,), SOCKMGR_HEARTBEAT=f"{memory}:8")
    assert words(memory)[1] == 0


def test_a_fork_does_not_beat_for_its_parent(memory: int) -> None:
    program = """
worker.watchdog()
if not (child := os.fork()):
    print(worker.watchdog(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert run(program, pass_fds=(memory,), SOCKMGR_HEARTBEAT=f"{memory}:8") == "None"


def test_a_descriptor_that_is_not_the_memory_is_not_written_to(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:
        file.truncate(64)
        told = run(
            "print(worker.watchdog())",
            pass_fds=(file.fileno(),),
            SOCKMGR_HEARTBEAT=f"{file.fileno()}:8",
        )
        assert told == "None"
        assert (tmp_path / "file").read_bytes() == bytes(64)


def test_under_systemd_alone_the_watchdog_is_fed_by_its_protocol(notify: NotifySocket) -> None:
    asked = {"NOTIFY_SOCKET": str(notify.path), "WATCHDOG_USEC": "3000000"}
    assert run("print(worker.watchdog())", **asked) == "1.5"
    assert [message.fields for message in notify.receive()] == [{"WATCHDOG": "1"}]
    assert run("print(worker.watchdog())", WATCHDOG_PID="1", **asked) == "None"
    assert run("print(worker.watchdog())", **asked | {"WATCHDOG_USEC": "9" * 5000}) == "None"


@pytest.mark.parametrize("count", ["2147483648", "9" * 5000])
def test_a_number_of_sockets_that_nobody_can_have_is_refused_by_its_name(count: str) -> None:
    program = "try:\n    worker.listeners()\nexcept ValueError as error:\n    print(error)"
    assert run(program, LISTEN_FDS=count) == f"LISTEN_FDS={count!r} is not a number of sockets"
