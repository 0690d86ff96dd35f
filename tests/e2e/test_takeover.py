"""Without systemd: a manager dies or is upgraded under load, and its workers never notice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from sockmgr.fleet.messages import State
from tests.e2e.apps import App
from tests.e2e.commands import PLAIN, UVICORN, config
from tests.e2e.harness import BIN, Manager, varlink, wait_for
from tests.e2e.programs.release import Ask, Release
from tests.helpers.load import Load

LOAD = "short:rate=100"


def again(manager: Manager) -> None:
    """Start another manager in place of the one that died."""
    manager.start()
    manager.wait_serving()


def pids(manager: Manager) -> set[int]:
    return {worker["pid"] for worker in manager.workers()}


def test_the_workers_of_a_manager_that_was_killed_are_adopted_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN)) as manager:
        before = pids(manager)
        with Load(manager.target(), [LOAD]) as load:
            for _ in range(3):
                manager.kill9()
                again(manager)
                assert pids(manager) == before
        assert not load.result.failed, load.result.failures()
        assert manager.reload().code == 0


def test_a_rollout_under_way_is_finished_by_the_next_manager(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN)) as manager:
        before = pids(manager)
        with Load(manager.target(), [LOAD]) as load:
            os.kill(manager.pid, signal.SIGHUP)
            wait_for(lambda: len(manager.workers()) > len(before), "the rollout")
            manager.kill9()
            again(manager)
            wait_for(lambda: not before & pids(manager), "its end")
        assert not load.result.failed, load.result.failures()
        states = {worker["state"] for worker in manager.workers()}
        assert states == {State.READY}


NOTIFIES = """
import os, pathlib, socket, time
while pathlib.Path("wait").exists():
    time.sleep(0.01)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ["NOTIFY_SOCKET"])
    notify.send(b"READY=1")
pathlib.Path(f"told.{os.getpid()}").touch()
while True:
    socket.socket(fileno=3).accept()
"""


def test_a_rollout_that_the_next_manager_aborts_is_said_to_have_begun_under_the_one_before(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.hold("2")
        asked = Ask(manager)
        # What the status tells of, the next manager knows as well.
        wait_for(lambda: len(manager.workers()) == 2, "the new worker")
        began = time.monotonic()
        manager.kill9()
        asked.hang_up()
        again(manager)
        least = time.monotonic() - began
        (verdict,) = manager.run("abort").answer
        assert (verdict["verdict"], verdict["generation"]) == ("aborted", 2)
        # The time of day, by which it is known, may be set meanwhile by a little.
        assert verdict["seconds"] > least / 2


def test_a_worker_that_gets_ready_while_there_is_no_manager_is_heard_by_the_next(
    tmp_path: Path,
) -> None:
    app = App("plain", tmp_path)
    command = (str(BIN / "python"), "-S", "-c", NOTIFIES.replace("\n", "\\n").replace('"', "'"))
    with Manager(tmp_path, config(app, command, more='ready = "notify"')) as manager:
        (app.directory / "wait").touch()
        os.kill(manager.pid, signal.SIGHUP)
        wait_for(lambda: len(manager.workers()) == 4, "the rollout")
        manager.kill9()
        (app.directory / "wait").unlink()
        wait_for(lambda: len(list(app.directory.glob("told.*"))) == 4, "what it says")
        again(manager)
        wait_for(lambda: manager.status()["services"]["web"]["generation"] == 2, "the commit")


def test_when_the_keeper_was_killed_as_well_the_survivors_give_the_sockets_back(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN)) as manager:
        before = pids(manager)
        with Load(manager.target(), [LOAD]) as load:
            manager.kill9(keeper=True)
            again(manager)
            wait_for(lambda: not before & pids(manager), "workers that somebody listens to")
        assert not load.result.failed, load.result.failures()


def test_what_survivors_gave_back_is_kept_for_the_manager_after_the_next(tmp_path: Path) -> None:
    app = App("plain", tmp_path)
    with Manager(tmp_path, config(app, PLAIN)) as manager:
        assert manager.reload().code == 0  # so that there is a queue that nobody holds but us
        wait_for(lambda: len(pids(manager)) == 2, "the old generation to leave")
        manager.kill9(keeper=True)
        again(manager)
        for _ in range(2):
            assert manager.reload().code == 0
            wait_for(lambda: len(pids(manager)) == 2, "the old generation to leave")
            kept = pids(manager)
            manager.kill9()
            again(manager)
            assert pids(manager) == kept
        # The first one had lost a queue with the keeper; no other has lost anything.
        assert manager.log.count("state of another manager not used") == 1


def test_after_a_stop_no_process_and_no_file_is_left(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN)) as manager:
        manager.kill9()
        again(manager)
        assert manager.stop() == 0
        assert manager.leftovers() == []
        assert not list(tmp_path.glob("control.*"))


def test_a_new_version_that_cannot_read_the_state_leaves_the_old_one_running(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    env = {"PYTHONPATH": str(shadow)}
    with Manager(tmp_path, config(app, UVICORN), env=env) as manager:
        before = pids(manager)
        (shadow / "sitecustomize.py").write_text(
            "import sys\nif '--check-state' in sys.argv:\n    sys.exit('no such format')\n"
        )
        done = manager.say("upgrade")
        assert done.code == 1
        assert "no such format" in done.stderr
        assert "goes on" in done.stderr
        assert pids(manager) == before
        assert manager.reload().code == 0


def test_a_reload_under_way_has_its_verdict_before_the_manager_is_replaced(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN, rollout="probation = 1")) as manager:
        before = pids(manager)
        os.kill(manager.pid, signal.SIGHUP)
        wait_for(lambda: len(manager.workers()) > len(before), "the rollout")
        assert varlink(manager.control, "Upgrade")["version"]
        wait_for(lambda: manager.log.count("manager started") == 2, "the new one")
        assert manager.log.index("committed") < manager.log.index("upgrading")
        assert not before & {w["pid"] for w in manager.workers() if w["state"] == State.READY}
