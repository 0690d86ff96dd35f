"""A template process: what it refuses, what its workers have, and who survives whom."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sockmgr.kernel import process
from tests.helpers.children import open_fds, python, wait_for_exit, wait_until
from tests.worker.templates import APP, Nursery, nursery

Story = Callable[[Nursery], Awaitable[None]]


def play(directory: Path, story: Story, main: str = APP) -> None:
    """Play `story` with a template of `main`; nothing may be left."""
    before = open_fds()

    async def scenario() -> None:
        async with nursery(directory, main) as found:
            await story(found)

    asyncio.run(scenario())
    assert open_fds() == before


def link(process: process.Process, fd: int) -> str:
    return str(Path(f"/proc/{process.pid}/fd/{fd}").readlink())


# --- Workers -----------------------------------------------------------------------------------


def test_a_worker_is_a_child_of_the_manager_in_a_session_of_its_own(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        worker = await nursery.made()
        wait_until(lambda: os.getsid(worker.pid) == worker.pid, what="its session")
        worker.signal(signal.SIGKILL)
        assert wait_for_exit(worker) == -signal.SIGKILL
        assert not worker.signal(0)

    play(tmp_path, story)


def test_a_worker_can_be_found_again_before_it_is_told_to_begin(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order(begin=False)
        worker = await nursery.made()
        assert nursery.recorded == 0
        assert wait_for_exit(worker) == 0  # since the manager let go of it
        nursery.order()
        await nursery.made()
        assert nursery.recorded == 1

    play(tmp_path, story)


def test_what_the_import_opened_is_not_where_the_workers_sockets_go(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        worker = await nursery.made()
        wait_until(lambda: link(worker, 1) == os.devnull, what="its own output")
        assert link(worker, 3) == f"socket:[{os.fstat(nursery.listener.fileno()).st_ino}]"
        assert link(worker, int((tmp_path / "number").read_text())) == str(tmp_path / "log")

    play(
        tmp_path,
        story,
        f"{APP}\nfile = open('log', 'w')\nopen('number', 'w').write(str(file.fileno()))\n",
    )


def test_workers_report_and_collect_garbage_as_always_and_their_template_does_not(
    tmp_path: Path,
) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        worker = await nursery.made()
        wait_until((tmp_path / "said").exists, what="the start-up")
        usual = gc.get_threshold()[0]
        assert (tmp_path / "said").read_text() == f"{worker.pid} None 0 /none {usual}"

    play(
        tmp_path,
        story,
        """
import gc, os, pathlib
def what():
    return f"{os.environ.get('NOTIFY_SOCKET')} {gc.get_threshold()[0]}"
early = what()
async def app(scope, receive, send):
    pathlib.Path("new").write_text(f"{os.getpid()} {early} {what()}")
    os.rename("new", "said")
""",
    )


def test_a_worker_that_is_wanted_no_more_while_it_is_made_ends_by_itself(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        order = nursery.order()
        order.withdraw()
        nursery.order()
        await nursery.made()
        # As the manager reaps what it does not know.
        known = {nursery.template.pid, *(each.pid for each in nursery._processes)}
        wait_until(lambda: not process.reap_strays(known), what="no other child")

    play(tmp_path, story)


# --- Deaths ------------------------------------------------------------------------------------


def test_the_workers_of_a_template_that_was_killed_live_on_and_the_next_has_another(
    tmp_path: Path,
) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        first, before = await nursery.made(), nursery.template.pid
        os.kill(before, signal.SIGKILL)
        await nursery.ended()
        assert first.peek() is None
        nursery.order()
        await nursery.made()
        assert nursery.template.pid != before

    play(tmp_path, story)


def test_a_template_that_dies_as_it_makes_a_worker_fails_it_and_leaves_no_worker(
    tmp_path: Path,
) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        nursery.order()
        assert await nursery.result() == -signal.SIGSEGV
        assert await nursery.result() == -signal.SIGSEGV
        process.reap_strays(())

    # In the parent, when the copy is there and before anybody was told.
    play(
        tmp_path,
        story,
        f"{APP}\nos.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), 11))\n",
    )


def test_code_that_is_broken_fails_all_that_wait_with_its_traceback(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        for _ in range(3):
            nursery.order()
        for _ in range(3):
            assert "ZeroDivisionError" in await nursery.refused()

    play(tmp_path, story, "1 / 0")


def test_a_template_that_hangs_is_killed_and_who_waits_is_told(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        wait_until((tmp_path / "there").exists, what="the import")
        nursery.template.kill()
        assert await nursery.result() == -signal.SIGKILL

    play(tmp_path, story, "import signal\nopen('there', 'w')\nsignal.pause()")


def test_a_template_ends_with_its_manager_even_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import os, signal\nprint(os.getpid())\nsignal.pause()\n")
    manager = """
import fcntl, os, signal, socket, sys
ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 10)
os.dup2(its.fileno(), 3)
os.posix_spawn(sys.executable, [sys.executable, "-u", "-P", "-m", "sockmgr.worker", "--fd", "3",
    "--template", "1", "main:app"], os.environ)
signal.pause()
"""
    with python(manager, cwd=str(tmp_path)) as child:
        template = os.pidfd_open(int(child.line()))
        child.process.signal(signal.SIGKILL)
        assert not child.rest()  # whose end all have that write there
        wait_until(lambda: not process.pid_of(template), what="its end")
        os.close(template)


# --- What cannot be copied -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (
            "import threading, signal\n"
            "threading.Thread(target=threading.Event().wait, name='poller').start()",
            "its import started threads, which no worker would have: poller",
        ),
        (
            "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])",
            "its import started processes, which no worker could wait for: sleep (pid ",
        ),
        (
            "import asyncio\nloop = asyncio.new_event_loop()",
            "its import made an event loop, which all workers would share: descriptor ",
        ),
        (
            "import uvloop\nloop = uvloop.new_event_loop()",
            "its import made an event loop, which all workers would share: descriptor ",
        ),
    ],
)
def test_an_import_after_which_no_copy_could_work_is_refused_with_the_reason(
    main: str, says: str, tmp_path: Path
) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        words = await nursery.refused()
        assert f"main:app cannot be preloaded: {says}" in words
        assert "start-up (lifespan), or set preload = false" in words

    play(tmp_path, story, f"{main}\n{APP}")


PEER = """
import socket
ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=10)
"""


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (
            f"{PEER}\nkept = socket.create_connection(ours.getsockname())",
            r"left 1 connection open to 127\.0\.0\.1:\d+ \(fd \d+\): all workers would share it",
        ),
        (
            f"{PEER}\nto = [each.getsockname()[:2] for each in (ours, theirs)]\n"
            "kept = [socket.create_connection(each) for each in to]\nkept[0].detach()",
            r"left 2 connections open to 127\.0\.0\.1:\d+ \(fd \d+\), \[::1\]:\d+ \(fd \d+\)",
        ),
        (
            "import socket\nserver = socket.socket(socket.AF_UNIX)\nserver.bind('db.sock')\n"
            "server.listen()\nkept = socket.socket(socket.AF_UNIX)\nkept.connect('db.sock')",
            r"left 1 connection open to db\.sock \(fd \d+\)",
        ),
        (
            "import socket\nkept = socket.socketpair()",
            r"left 2 connections open to a unix socket without a name \(fd \d+, \d+\)",
        ),
        (
            "import socket\nkept = socket.socket(type=socket.SOCK_DGRAM)\n"
            "kept.connect(('127.0.0.1', 53))",
            r"left 1 connection open to 127\.0\.0\.1:53 \(fd \d+\)",
        ),
        (
            "import sqlite3\nkept = sqlite3.connect('shop.db')\nkept.execute('create table t(x)')",
            r"left 1 SQLite database open, /\S+/shop\.db \(fd \d+\): no copy may use it",
        ),
    ],
)
def test_an_import_that_leaves_a_connection_or_a_database_open_is_refused_by_name(
    main: str, says: str, tmp_path: Path
) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        assert re.search(
            f"cannot be preloaded: its import {says}", words := await nursery.refused()
        )
        assert "undo that by the end of the import" in words

    play(tmp_path, story, f"{main}\n{APP}")


def test_sockets_and_files_that_copies_may_share_are_no_obstacle(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        await nursery.made()

    main = f"""{PEER}
import logging.handlers, os, sqlite3
syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
syslog.bind("log.sock")
handler = logging.handlers.SysLogHandler("log.sock")
handler.emit(logging.makeLogRecord({{}}))
statsd = socket.socket(type=socket.SOCK_DGRAM)
statsd.sendto(b"x", ("127.0.0.1", 9))
ended = socket.create_connection(ours.getsockname())
ended.close()
garbage = [socket.create_connection(ours.getsockname())]
garbage.append(garbage)
del garbage
with sqlite3.connect("shop.db") as made:
    made.execute("create table t(x)")
made.close()
kept = sqlite3.connect("file:shop.db?mode=ro", uri=True)
kept.execute("select * from t")
pipe, log = os.pipe(), open("log", "a+")
"""
    play(tmp_path, story, main + APP)


def test_an_import_that_forks_makes_no_second_template(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        assert "cannot be preloaded: its import " in await nursery.refused()

    wait = "if pid: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)"
    for then in ("", wait):
        play(tmp_path, story, f"import os\npid = os.fork()\n{then}\n{APP}")


def test_what_an_import_started_and_ended_is_no_obstacle(tmp_path: Path) -> None:
    async def story(nursery: Nursery) -> None:
        nursery.order()
        await nursery.made()

    main = """
import asyncio, subprocess, threading
subprocess.run(["true"])
asyncio.run(asyncio.sleep(0))
thread = threading.Thread(target=print)
thread.start()
thread.join()
"""
    play(tmp_path, story, main + APP)


# --- Lies ----------------------------------------------------------------------------------------


def test_only_a_child_of_ours_from_the_group_of_the_template_is_taken_for_a_worker() -> None:
    pause = "import signal; signal.pause()"
    with python(pause) as child, python(pause) as other:
        for pid in (os.getpid(), 1, child.pid):
            assert process.own_child(os.pidfd_open(pid), other.pid) is None
        with socket.socket() as sock:
            assert process.own_child(os.dup(sock.fileno()), other.pid) is None
        assert child.process.peek() is None
