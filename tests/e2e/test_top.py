"""`sockmgr top` beside a real manager: what its keys do is done, and no request is lost."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered
from tests.e2e.top import Top
from tests.helpers.load import Load


def names(manager: Manager) -> list[str]:
    return sorted(f"web@{w['generation']}.{w['slot']}" for w in manager.workers())


def test_reload_scale_and_restart_by_keys_lose_nothing(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config("workers = 2")) as manager:
        with Load(manager.target(), LIGHT) as load, Top(manager.control) as top:
            top.see("web  serving  generation 1  2/2 ready")
            top.press("ry")
            top.see("web: generation 2 serves after")
            top.see("web  serving  generation 2  2/2 ready")
            top.press("+y")
            top.see("web: 3 workers are ready")
            top.see("3/3 ready")
            top.press("\x1b[B\x1b[B")
            top.press("w")
            top.see("restart web@2.1")
            top.press("y")
            top.see("web@2.1 is replaced by web@2.4")
            top.see("web@2.4 worker ready")
            answered(load, count=3)
            top.press("q")
            assert top.wait() == 0
        assert not load.result.failed, load.result.failures()
        wait_for(lambda: names(manager) == ["web@2.2", "web@2.3", "web@2.4"], "the old to end")


def test_a_rollout_is_shown_as_it_goes_and_why_it_was_taken_back(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.deploy("2", "hangs")
        with Top(manager.control) as top:
            top.see("web  serving  generation 1  1/1 ready")
            top.press("ry")
            top.see(r"generation 2 booting \[-{10}\] 0/1 ready, gives up in \d+ s")
            found = top.see(r"web@2.1 +(\d+) starting")
            os.kill(int(found[1]), signal.SIGKILL)
            top.see("generation 2 aborted, generation 1 keeps serving: worker 2.1 was killed by")
            top.see("web@2 aborted: worker 2.1 was killed by signal 9")


def test_a_manager_that_is_killed_is_missed_and_the_next_one_is_found(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager, Top(manager.control) as top:
        top.see(f"pid {manager.pid} ")
        manager.kill9()
        top.see("^no manager answers; waiting for the next one$")
        manager.start()
        top.see(f"pid {manager.pid} ")
        top.see("web@1.1 worker adopted")
        assert "web@1.1 worker started" in top.text


def test_the_connections_of_a_worker_are_counted(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/http.sock"
    with Manager(tmp_path, Release(tmp_path).config(address=address)) as manager:

        def connections() -> str:
            done = manager.say("top", "--once")
            assert done.code == 0, done.stderr
            (row,) = [line for line in done.stdout.splitlines() if line.startswith("  web@1.1")]
            return row.split()[-1]

        assert connections() == "0"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(f"{tmp_path}/http.sock")
            wait_for(lambda: connections() == "1", "the connection to be accepted")
