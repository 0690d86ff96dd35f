"""Watching, signalling and reaping real processes, and finding what they leave behind."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from sockmgr.errors import SpawnError
from sockmgr.kernel import process as module
from sockmgr.kernel.process import (
    UNKNOWN_STATUS,
    Process,
    has_no_reader,
    kill_holder,
    open_pidfd,
    pid_of,
    send,
)
from sockmgr.kernel.procfs import cpu_time, resident, start_time
from sockmgr.kernel.spawn import Launch, spawn
from tests.helpers.children import PATIENCE, open_fds, python, running, wait_for_exit, wait_until

HERE = str(Path.cwd())


def shell(script: str) -> Process:
    argv = ["sh", "-c", script]
    launch = Launch(argv=argv, executable="/bin/sh", env={}, cwd=HERE, set_listen_pid=False)
    return Process(spawn(launch))


def test_a_look_at_the_status_of_a_dead_process_leaves_it_to_be_reaped() -> None:
    process = shell("exit 3")
    select.select([process.pidfd], [], [], PATIENCE)
    assert [process.peek(), process.peek()] == [3, 3]
    assert Path(f"/proc/{process.pid}/stat").exists()
    assert (process.poll(), process.peek()) == (3, 3)
    assert not Path(f"/proc/{process.pid}/stat").exists()
    process.close()


def test_a_look_at_the_status_of_a_living_process_finds_none() -> None:
    process = shell("exec sleep 1000")
    assert process.peek() is None
    process.signal(signal.SIGKILL)
    assert wait_for_exit(process) == process.peek() == -signal.SIGKILL
    process.close()


@pytest.fixture
def sleeper() -> Iterator[Process]:
    process = shell("exec sleep 600")
    yield process
    process.signal(signal.SIGKILL)
    wait_for_exit(process)
    process.close()


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- Processes of another manager ----------------------------------------------------------------


def test_a_process_is_opened_again_if_it_is_still_the_same(sleeper: Process) -> None:
    pidfd = open_pidfd(sleeper.pid, start_time(sleeper.pid))
    assert pidfd is not None
    assert pid_of(pidfd) == sleeper.pid
    assert not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_a_pid_that_means_nobody_or_another_by_now_is_not_opened(sleeper: Process) -> None:
    ended = shell("exit 0")
    started = start_time(ended.pid)
    wait_for_exit(ended)
    ended.close()
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_native_id).result()
        before = open_fds()
        for pid in (ended.pid, thread):
            assert open_pidfd(pid, started) is None
        assert open_pidfd(sleeper.pid, start_time(sleeper.pid) - 1) is None
        assert open_fds() == before


# --- Exits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -9 $$", -9)]
)
def test_an_exit_is_told_as_popen_tells_it(script: str, status: int) -> None:
    process = shell(script)
    assert wait_for_exit(process) == status
    assert process.poll() == status
    process.close()


def test_a_living_process_has_no_status(sleeper: Process) -> None:
    assert sleeper.poll() is None
    assert sleeper.signal(signal.SIGTERM)
    assert wait_for_exit(sleeper) == -15


def test_a_stopped_process_has_not_exited(sleeper: Process) -> None:
    sleeper.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
    assert sleeper.poll() is None


def test_no_exit_of_300_short_children_is_missed() -> None:
    before = open_fds()
    expected: dict[int, tuple[Process, int]] = {}
    watch = select.epoll()
    for number in range(300):
        process = shell(f"exit {number % 120}")
        expected[process.pidfd] = process, number % 120
        watch.register(process.pidfd, select.EPOLLIN)
    while expected:
        events = watch.poll(30)
        assert events, f"{len(expected)} exits were never told"
        for fd, _ in events:
            process, status = expected.pop(fd)
            assert process.poll() == status
            watch.unregister(fd)
            process.close()
    watch.close()
    assert open_fds() == before


def test_a_reaped_process_cannot_be_signalled() -> None:
    process = shell("exit 0")
    wait_for_exit(process)
    assert not process.signal(signal.SIGKILL)
    assert not process.signal_group(signal.SIGKILL)
    process.close()
    assert not process.signal(signal.SIGKILL)
    process.close()


def test_a_process_of_another_parent_is_watched_too() -> None:
    program = """
import os, subprocess
child = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
print(child.pid)
os.read(3, 1)
child.stdin.write(b"\\n"); child.stdin.flush()
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
print("dead")
os.read(3, 1)
child.wait()
print("reaped")
"""
    reader, writer = os.pipe()
    try:
        with python(program, fds=[reader]) as parent:
            pid = int(parent.line())
            early, late = (Process(pid, pidfd=os.pidfd_open(pid)) for _ in range(2))
            assert early.poll() is None
            os.write(writer, b"\n")
            assert parent.line() == "dead"
            assert early.poll() == 7
            os.write(writer, b"\n")
            assert parent.line() == "reaped"
            # Linux before 6.15 cannot tell any more.
            assert late.poll() in (7, UNKNOWN_STATUS)
            early.close()
            late.close()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_child_that_cannot_be_watched_is_not_left_running() -> None:
    launch = Launch(argv=["sleep", "600"], executable="/bin/sleep", env={}, cwd=HERE)
    pid = spawn(launch)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(SpawnError, match=os.strerror(errno.EMFILE)):
            Process(pid)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_with_sigchld_ignored_the_cause_is_told_and_reset_signals_mends_it() -> None:
    program = """
import os, signal
from sockmgr.errors import SpawnError
from sockmgr.kernel import process
from sockmgr.kernel.spawn import Launch, spawn
launch = Launch(argv=["true"], executable="/bin/true", env={}, cwd="/", set_listen_pid=False)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
pid = spawn(launch)
while os.path.exists(f"/proc/{pid}"): pass
try:
    process.Process(pid)
except SpawnError as error:
    print(error)
process.reset_signals()
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
child = process.Process(spawn(launch))
while child.poll() is None: pass
print(child.status)
"""
    text = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=HERE)
    assert "SIGCHLD must not be ignored" in text
    assert text.endswith("\n0\n")


# --- Groups and strays -------------------------------------------------------------------------


def test_a_signal_to_the_group_reaches_its_children() -> None:
    with running(["sh", "-c", "sleep 600 & echo $!; wait"], executable="/bin/sh") as child:
        pid = int(child.line())
        assert child.process.signal_group(signal.SIGKILL)
        assert wait_for_exit(child.process) == -9
        wait_until(lambda: not is_alive(pid), what="the child's end")


def test_what_a_dead_worker_left_in_its_group_can_be_killed_before_it_is_reaped() -> None:
    with running(["sh", "-c", "sleep 600 & echo $!"], executable="/bin/sh") as child:
        pid = int(child.line())
        select.select([child.process.pidfd], [], [], 30)
        assert is_alive(pid)
        assert child.process.signal_group(signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), what="the leftover's end")
        assert child.process.poll() == 0


def test_without_the_kernels_help_a_group_is_signalled_only_until_it_is_reaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A flag no kernel knows: what one before 6.9 makes of the real one.
    monkeypatch.setattr(module, "_PIDFD_SIGNAL_PROCESS_GROUP", 1 << 20)
    with running(["sh", "-c", "sleep 600 & echo $!; wait"], executable="/bin/sh") as child:
        pid = int(child.line())
        assert child.process.signal_group(signal.SIGTERM)
        assert wait_for_exit(child.process) == -15
        wait_until(lambda: not is_alive(pid), what="the child's end")
        assert not child.process.signal_group(signal.SIGTERM)


STRAYS = """
import os, signal, subprocess, sys, time
from sockmgr.kernel import process
from sockmgr.kernel.spawn import Launch, spawn
process.become_subreaper()
def shell(script):
    argv = ["sh", "-c", script]
    return process.Process(spawn(Launch(argv=argv, executable="/bin/sh", env={}, cwd="/")))
def dead(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
assert process.reap_strays(()) == []
"""


def adopting(program: str) -> str:
    """Run as a manager of its own: only one process can adopt what is orphaned."""
    return subprocess.check_output([sys.executable, "-c", STRAYS + program], text=True, cwd=HERE)


def test_orphans_are_adopted_and_reaped_and_known_workers_are_not_touched() -> None:
    text = adopting("""
worker = shell("(sh -c 'exit 5' &); exit 3")
dead(worker.pid)
found = []
while not found:
    found = process.reap_strays({worker.pid})
print([status for _, status in found], worker.poll(), process.reap_strays({worker.pid}))
""")
    assert text.splitlines()[-1] == "[5] 3 []"


def test_a_dead_worker_does_not_hide_the_orphans_behind_it() -> None:
    text = adopting("""
workers = [shell("exit 1") for _ in range(5)]
for worker in workers: dead(worker.pid)
known = {worker.pid for worker in workers}
orphans = []
for _ in range(20):
    pid = os.fork()
    if pid == 0: os._exit(9)
    dead(pid)
    orphans.append((pid, 9))
print(sorted(process.reap_strays(known)) == sorted(orphans), [w.poll() for w in workers])
""")
    assert text.splitlines()[-1] == "True [1, 1, 1, 1, 1]"


def test_only_who_still_holds_a_socket_is_killed_for_it() -> None:
    with socket.socket() as sock, python("import signal; signal.pause()") as other:
        inode = os.fstat(sock.fileno()).st_ino
        assert not kill_holder(other.pid, [inode])
        assert other.process.poll() is None
        with python("import signal; signal.pause()", fds=[sock.fileno()]) as holder:
            assert kill_holder(holder.pid, [inode])
            assert wait_for_exit(holder.process) == -signal.SIGKILL
            assert not kill_holder(holder.pid, [inode])


def test_a_signal_for_a_process_never_reaches_another_of_its_pid() -> None:
    with python("import signal; signal.pause()") as child:
        send(child.pid, start_time(child.pid) - 1, signal.SIGKILL)
        assert child.process.poll() is None
        send(child.pid, start_time(child.pid), signal.SIGKILL)
        assert wait_for_exit(child.process) == -signal.SIGKILL


def test_the_memory_of_a_process_is_what_proc_says_and_0_when_it_is_gone() -> None:
    status = Path("/proc/self/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    assert resident(os.getpid()) == pytest.approx(int(kilobytes) * 1024, rel=0.1)
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert resident(gone.pid) == 0


def test_a_pipe_is_without_a_reader_when_all_have_closed_its_other_end() -> None:
    read, write = os.pipe()
    with tempfile.TemporaryFile() as file, socket.socket() as sock:
        assert not any(has_no_reader(os.getpid(), fd) for fd in (read, write))
        os.close(read)
        assert has_no_reader(os.getpid(), write)
        os.close(write)
        others = (write, file.fileno(), sock.fileno())  # closed, no pipe, no pipe
        assert not any(has_no_reader(os.getpid(), fd) for fd in others)


BUSY = """
import os, sys, time
if (child := os.fork()) == 0:
    while time.process_time() < 0.3:
        pass
    os._exit(0)
os.waitpid(child, 0)
print("done", flush=True)
sys.stdin.read()
"""


def test_the_time_that_a_process_has_used_has_that_of_its_dead_children() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        assert 0.25 <= cpu_time(busy.pid) < 5
    assert cpu_time(busy.pid) == 0


def test_processes_that_follow_each_other_have_draws_that_are_far_apart() -> None:
    process = Process(0, pidfd=-1)
    draws = []
    for process.pid in range(1000, 1010):
        draws.append(process.draw)
    assert all(0 <= draw < 1 for draw in draws)
    draws.sort()
    assert max(b - a for a, b in pairwise(draws)) < 0.25
