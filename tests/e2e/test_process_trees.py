"""A worker is its process tree: whoever of it serves is told to stop, and finishes; the end of all
is the worker's end; and nobody of it is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from sockmgr.kernel.procfs import descendants
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import serving, wait_in_log

SERVER = f"{sys.executable} -S -E {Path(__file__).parent / 'programs' / 'slow_server.py'}"
WRAPPED = f"{SERVER}; echo bye"
# Forks and waits, handles nothing, and dies of TERM at once: as `go run` does.
LAUNCHER = (
    "import subprocess, sys, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL);"
    "sys.exit(subprocess.call(sys.argv[1:], close_fds=False))"
)


def config(*command: str, keys: str = "", probation: float = 0.1) -> str:
    words = ", ".join(f'"{word}"' for word in command)
    return (
        f'[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\ncommand = [{words}]\n'
        f"listen_pid = false\n{keys}\n"
        f"[service.web.rollout]\nprobation = {probation}\nmax_failed_starts = 1\n"
    )


def sh(script: str, keys: str = "") -> str:
    return config("sh", "-c", script, keys=keys)


class Request(threading.Thread):
    """One request, in flight from its creation on; `answer` waits for what comes."""

    def __init__(self, manager: Manager, seconds: float) -> None:
        super().__init__()
        address = manager.status()["listeners"]["http"]["address"]
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._sock = socket.create_connection((host, int(port)), timeout=30)
        self._sock.sendall(f"GET /{seconds} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self._got = b""
        self.start()

    def run(self) -> None:
        with self._sock:
            try:
                while data := self._sock.recv(1000):
                    self._got += data
            except ConnectionResetError:
                return

    @property
    def answer(self) -> bytes:
        self.join()
        return self._got[:15]


OK = b"HTTP/1.1 200 OK"


def server_pids(manager: Manager) -> list[int]:
    """Return the servers that printed that they serve, oldest first."""
    return [int(pid) for pid in re.findall(r"serving (\d+)", manager.log)]


def busy(manager: Manager, seconds: float) -> Request:
    """Send a request, and return when a worker has it."""
    request = Request(manager, seconds)
    wait_for(
        lambda: manager.status()["listeners"]["http"]["queue"] == 0, "the request to be accepted"
    )
    return request


def program(pid: int) -> str:
    """Return the name of the program that a process runs; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def wait_gone(manager: Manager) -> None:
    """Wait until nothing is left but the manager, its workers, and what they have started."""

    def left() -> bool:
        known = {w["pid"] for w in manager.workers()}
        return set(manager.leftovers()) <= known.union(*map(descendants, known))

    wait_for(left, "all but the workers to be gone", timeout=10)


# --- Reloads, and other drains -------------------------------------------------------------------

WRAPPERS = {
    "sh that says something after": sh(WRAPPED),
    "sh in sh": sh(f"sh -c '{WRAPPED}'; echo bye again"),
    "a launcher that forks": config(sys.executable, "-c", LAUNCHER, *SERVER.split()),
    "a server in a session of its own": sh(f"setsid -w {WRAPPED}"),
    "a job in a group of its own": sh(f"set -m; {SERVER} & wait"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_request_in_flight_behind_a_wrapper_that_dies_of_the_stop_signal_is_answered(
    name: str, tmp_path: Path
) -> None:
    with Manager(tmp_path, WRAPPERS[name]) as manager:
        (old,) = server_pids(manager)
        request = busy(manager, 1.5)
        assert manager.reload().code == 0
        assert request.answer == OK
        assert "how=clean" in wait_in_log(manager, "worker ended", "web@1.1")
        assert manager.log.count(f"told {old}") == manager.log.count(f"finished {old}") == 1
        assert "process killed" not in manager.log
        wait_gone(manager)


def test_a_stop_waits_for_the_server_behind_a_wrapper(tmp_path: Path) -> None:
    with Manager(tmp_path, sh(WRAPPED)) as manager:
        request = busy(manager, 1.5)
        assert manager.stop() == 0
        assert request.answer == OK
        assert manager.leftovers() == []


def test_a_restart_of_a_worker_waits_for_the_server_behind_a_wrapper(tmp_path: Path) -> None:
    with Manager(tmp_path, sh(WRAPPED)) as manager:
        request = busy(manager, 1.5)
        assert manager.run("restart-worker", "web@1.1").code == 0
        assert request.answer == OK
        wait_gone(manager)


def test_what_is_not_drained_in_time_behind_a_wrapper_is_killed_and_told_so(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, sh(WRAPPED, "drain_timeout = 0.5")) as manager:
        (old,) = server_pids(manager)
        request = busy(manager, 60)
        assert manager.reload().code == 0
        wait_in_log(manager, "worker killed", "web@1.1", "not drained within 0.5 s")
        ended = wait_in_log(manager, "worker ended", "web@1.1")
        assert "was=killed" in ended
        assert "clean" not in ended
        assert request.answer == b""
        assert f"finished {old}" not in manager.log
        assert manager.status()["services"]["web"]["counts"]["killed"] == 1
        wait_gone(manager)


def test_a_server_that_was_told_is_not_told_again_by_the_next_manager(tmp_path: Path) -> None:
    with Manager(tmp_path, sh(WRAPPED)) as manager:
        (old,) = server_pids(manager)
        request = busy(manager, 2.5)
        assert manager.reload().code == 0
        wait_in_log(manager, "process told to stop", f"pid={old}")
        manager.status()  # what is told is saved before
        manager.kill9()
        manager.start()
        manager.wait_serving()
        assert request.answer == OK
        wait_in_log(manager, "worker ended", "web@1.1", "how=clean")
        assert manager.log.count(f"told {old}") == manager.log.count(f"finished {old}") == 1
        wait_gone(manager)


def test_the_next_manager_tells_the_server_behind_a_wrapper_that_it_has_adopted(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, sh(WRAPPED)) as manager:
        manager.kill9()
        manager.start()
        manager.wait_serving()
        request = busy(manager, 1.5)
        assert manager.reload().code == 0
        assert request.answer == OK
        wait_in_log(manager, "worker ended", "web@1.1", "how=clean")
        wait_gone(manager)


# --- Ends that nobody asked for ------------------------------------------------------------------


def test_a_server_may_finish_when_the_process_before_it_ends_by_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    with Manager(tmp_path, sh(f"{SERVER} & read line < {tmp_path}/go; exit 0")) as manager:
        request = busy(manager, 2.5)
        (tmp_path / "go").write_text("\n")
        wait_for(lambda: len(server_pids(manager)) == 2, "its successor")
        assert request.is_alive()
        assert request.answer == OK
        wait_in_log(manager, "worker ended", "web@1.1", "how=recycled")
        wait_gone(manager)


def test_after_a_crash_a_second_is_left_to_what_the_main_process_has_started(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, sh(WRAPPED)) as manager:
        _, (main,) = serving(manager)
        short = busy(manager, 0.5)
        os.kill(main, signal.SIGKILL)
        assert short.answer == OK
        wait_for(lambda: len(server_pids(manager)) == 2, "its successor")
        manager.wait_serving()
        _, (main,) = serving(manager)
        long = busy(manager, 60)
        os.kill(main, signal.SIGKILL)
        assert long.answer == b""
        wait_in_log(manager, "stray process killed", "left_by=web@1.1")
        wait_gone(manager)


# --- Helpers -------------------------------------------------------------------------------------

# Each has a resource tracker of its own, which unlinks what is left when all others have ended.
SHARED_MEMORY = """
from multiprocessing.shared_memory import SharedMemory
segment = SharedMemory(name="{name}-" + str(os.getpid()), create=True, size=4096)
"""
POOL = """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
pool.submit(abs, 1).result()
"""


def names() -> set[str]:
    """Return what there is of shared memory and semaphores."""
    return {each.name for each in Path("/dev/shm").iterdir()}


def helped(tmp_path: Path, name: str, *lines: str) -> str:
    """Return the config of a server that makes these first, and ends without a word to them."""
    program = tmp_path / "helped.py"
    server = (Path(__file__).parent / "programs" / "slow_server.py").read_text()
    body = "\n".join(f"    {line}" for line in "".join(lines).format(name=name).splitlines())
    program.write_text(
        f"import os\nif __name__ == '__main__':\n{body}\n    exec({server!r})\n    os._exit(0)\n"
    )
    return config(sys.executable, str(program))


@pytest.mark.parametrize("how", ["reload", "stop", "kill -9"])
def test_nothing_of_shared_memory_and_semaphores_is_left_by_workers_that_have_ended(
    how: str, tmp_path: Path
) -> None:
    name = f"sockmgr-{os.getpid()}-{how.replace(' ', '')}"

    def segments() -> list[str]:
        return [each for each in names() if each.startswith(name)]

    with Manager(tmp_path, helped(tmp_path, name, SHARED_MEMORY)) as manager:
        assert len(segments()) == 1
        match how:
            case "reload":
                assert manager.reload().code == 0
                assert "how=clean" in wait_in_log(manager, "worker ended", "web@1.1")
                assert len(segments()) == 1
            case "kill -9":
                os.kill(serving(manager)[1].pop(), signal.SIGKILL)
                wait_in_log(manager, "worker ended", "web@1.1")
        assert "process killed" not in manager.log
        assert manager.stop() == 0
        assert segments() == []


def test_a_pool_that_is_not_shut_down_costs_a_second_and_leaves_no_semaphore(
    tmp_path: Path,
) -> None:
    before = names()
    with Manager(tmp_path, helped(tmp_path, "x", POOL)) as manager:
        assert any(each.startswith("sem.mp-") for each in names() - before)
        assert manager.reload().code == 0
        wait_in_log(manager, "worker ended", "web@1.1", "how=clean")
        assert manager.stop() == 0
        assert "process killed" not in manager.log  # it was asked to end before, and did
    assert not [each for each in names() - before if each.startswith("sem.")]


# --- What leaves the tree ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "daemon",
    [
        "setsid sleep 1000 & ",
        "(setsid sleep 1000 &); ",
        "(setsid sh -c 'trap : TERM; while :; do sleep 1000; done' &); ",
    ],
)
def test_no_daemon_that_a_worker_has_started_is_left_after_a_stop(
    daemon: str, tmp_path: Path
) -> None:
    with Manager(tmp_path, sh(f"{daemon} exec {SERVER}")) as manager:
        wait_for(lambda: any(program(pid) == "sleep" for pid in manager.leftovers()), "the daemon")
        assert manager.stop() == 0
        assert manager.leftovers() == []


def test_what_was_started_before_the_manager_became_one_is_left_alone_by_a_stop(
    tmp_path: Path,
) -> None:
    before = ("sh", "-c", 'sleep 1000 & exec "$@"', "sh")
    with Manager(tmp_path, sh(f"exec {SERVER}"), under=before) as manager:
        assert manager.stop() == 0
        assert [program(pid) for pid in manager.leftovers()] == ["sleep"]


def test_a_burst_of_orphans_is_one_event_and_not_one_each(tmp_path: Path) -> None:
    burst = "for n in $(seq 300); do (: &); done; "
    with Manager(tmp_path, sh(f"{burst} exec {SERVER}")) as manager:
        wait_in_log(manager, "descendants reaped", "number=", "how='most exited with status 0'")
        bursts = manager.events("descendants reaped")
        assert len(bursts) + len(manager.events("descendant reaped")) < 20


def test_many_processes_of_one_worker_are_told_to_stop_and_told_of_in_one_record(
    tmp_path: Path,
) -> None:
    program = tmp_path / "many.py"
    server = (Path(__file__).parent / "programs" / "slow_server.py").read_text()
    program.write_text(
        "import os, signal\nfor _ in range(100):\n    if os.fork() == 0:\n        signal.pause()\n"
        f"exec({server!r})\nos._exit(0)\n"
    )
    with Manager(tmp_path, config(sys.executable, str(program))) as manager:
        assert manager.reload().code == 0
        wait_in_log(manager, "process told to stop", "number=100", "left_by=web@1.1")
        wait_in_log(manager, "worker ended", "web@1.1", "how=clean")
        assert len(manager.events("process told to stop")) == 1
        wait_gone(manager)


# --- Those who do not want to go -----------------------------------------------------------------

ESCAPES = {
    "joins the manager's group": "os.setpgid(0, os.getpgid(os.getppid()))",
    "makes a group for its child": "os.fork() or os.setpgid(0, 0)",
    "makes a session for its child": "os.fork() or os.setsid()",
    "moves itself and leaves a child": "os.fork() or os.setsid() or os.fork() or os.setsid()",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_no_worker_escapes_kill_wherever_it_goes(name: str, tmp_path: Path) -> None:
    program = tmp_path / "escapes.py"
    server = (Path(__file__).parent / "programs" / "slow_server.py").read_text()
    deaf = server.replace(
        "signal.signal(signal.SIGTERM, stop)", "signal.signal(15, signal.SIG_IGN)"
    )
    program.write_text(
        f"import os\ntry:\n    {ESCAPES[name]}\nexcept PermissionError:\n    pass\nexec({deaf!r})\n"
    )
    keys = "drain_timeout = 0.2"
    with Manager(tmp_path, config(sys.executable, str(program), keys=keys)) as manager:
        assert manager.reload().code == 0
        wait_in_log(manager, "worker killed", "web@1.1")
        wait_in_log(manager, "worker ended", "web@1.1", "was=killed", "signal 9")
        wait_gone(manager)
        assert manager.run("stop", "--now", timeout=10).code == 0
        assert manager.wait() == 0
        assert manager.leftovers() == []
