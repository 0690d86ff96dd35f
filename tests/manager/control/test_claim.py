"""A control path belongs to one process at a time, and to its user only."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sockmgr.errors import ControlError
from sockmgr.manager.control.claim import Claim
from sockmgr.manager.control.server import ControlServer
from tests.helpers.fake_manager import FakeManager, served
from tests.helpers.raw_client import assert_serves, run, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


def test_the_socket_is_for_its_owner_only(path: Path) -> None:
    async def scenario() -> None:
        before = os.umask(0)
        try:
            async with served(path, FakeManager()):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert os.umask(0) == 0
        finally:
            os.umask(before)

    run(scenario)


def test_a_path_where_nobody_answers_is_taken_over(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def scenario() -> None:
        async with served(path, FakeManager()):
            await assert_serves(path)

    run(scenario)
    assert list(path.parent.iterdir()) == []


def test_a_path_where_a_manager_answers_is_left_to_it_and_its_pid_is_told(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            with pytest.raises(ControlError, match=rf"another manager \(pid {os.getpid()}\)"):
                await ControlServer(path, FakeManager()).open()
            await assert_serves(path)

    run(scenario)


def test_of_two_that_find_a_dead_socket_at_once_one_gets_the_path(tmp_path: Path) -> None:
    claim = """
import sys
from pathlib import Path
from sockmgr.errors import ControlError
from sockmgr.manager.control.claim import Claim
print("here", flush=True)
sys.stdin.readline()
try:
    claim = Claim(Path(sys.argv[1]))
except ControlError as error:
    print(error.what, flush=True)
else:
    print("mine", flush=True)
sys.stdin.readline()
"""
    for number in range(5):
        path = tmp_path / f"{number}.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", claim, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        answers = []
        for line in ("go", "done"):
            for racer in racers:
                assert racer.stdout is not None
                answers.append(racer.stdout.readline().strip())
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(line + "\n")
                racer.stdin.flush()
        for racer in racers:
            racer.communicate()
        assert answers.count("mine") == 1, answers
        assert sum("another manager" in answer for answer in answers) == 3, answers


def test_one_that_finds_a_dead_socket_looks_again_when_it_is_its_turn(path: Path) -> None:
    def is_waiting() -> bool:
        """Tell whether the lock is open twice: by us, who have it, and by one that wants it."""
        links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return links.count(Path(turn.name)) == 2

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with socket.socket(socket.AF_UNIX) as other, ThreadPoolExecutor(1) as pool:
        with (path.parent / ".shop.sock.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            claim = pool.submit(Claim, path)
            asyncio.run(until(lambda: is_waiting() or claim.done()))
            path.unlink()
            other.bind(str(path))
            other.listen()
        with pytest.raises(ControlError, match="another manager"):
            claim.result()


def test_a_lock_that_somebody_holds_for_ever_is_waited_for_until_a_deadline(
    path: Path,
) -> None:
    lock = path.parent / ".shop.sock.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ControlError, match=re.escape(f"another process holds {lock}")):
            Claim(path, patience=0.1)
    Claim(path).close()


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ControlError, match="not a socket"):
        asyncio.run(ControlServer(path, FakeManager()).open())
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_or_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 120), tmp_path / "missing" / "shop.sock"):
        with pytest.raises(ControlError, match=re.escape(str(path))):
            asyncio.run(ControlServer(path, FakeManager()).open())


def test_a_path_that_another_took_over_is_not_removed_at_the_end(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            path.unlink()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
                inode = path.stat().st_ino
        assert path.stat().st_ino == inode

    run(scenario)
