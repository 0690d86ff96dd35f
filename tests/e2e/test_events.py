"""`sockmgr events` and `sockmgr restart-worker`, beside a running manager."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release, answered, serving, wait_gone
from tests.helpers.load import Load


def names(manager: Manager) -> list[str]:
    return sorted(f"web@{w['generation']}.{w['slot']}" for w in manager.workers())


def test_events_are_told_once_each_though_the_manager_is_killed_and_upgraded(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, Release(tmp_path).config("workers = 2")) as manager:
        argv = [sys.executable, "-m", "sockmgr", "events", "--control", str(manager.control)]
        told = tmp_path / "events"
        with told.open("w") as out, subprocess.Popen(
            [*argv, "--json", "-n", "100"], stdout=out, stderr=subprocess.PIPE, text=True
        ) as follower:  # fmt: skip
            try:
                assert manager.reload().code == 0
                manager.kill9()
                manager.start()
                manager.wait_serving()
                assert manager.run("upgrade").code == 0
                assert manager.reload().code == 0
                manager.stop()
                wait_for(lambda: '"stopped"' in told.read_text(), "the last event")
            finally:
                follower.kill()
            assert follower.stderr
            narrated = follower.stderr.read()
        events = [json.loads(line) for line in told.read_text().splitlines()]
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))
    assert "missed" not in narrated
    assert narrated.count("the next manager answers") == 2
    kinds = [event["event"] for event in events]
    assert kinds.count("manager-started") == 3
    assert kinds.count("worker-started") == kinds.count("worker-ended") == 6
    assert kinds.count("worker-adopted") >= 4  # one that drained when the manager died, too
    assert kinds.count("committed") == 2
    assert kinds.count("upgrading") == 1


def test_a_worker_is_restarted_alone_and_nothing_is_lost(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config("workers = 2")) as manager:
        generation, before = serving(manager)
        with Load(manager.target(), LIGHT) as load:
            answered(load)
            done = manager.run("restart-worker", "web@1.1")
            assert (done.code, done.answer["successor"]) == (0, "web@1.3"), done.stderr
            wait_gone(manager)
            answered(load, count=3)
        assert not load.result.failed, load.result.failures()
        wait_for(lambda: names(manager) == ["web@1.2", "web@1.3"], "the old worker to end")
        assert serving(manager)[0] == generation
        assert len(before & serving(manager)[1]) == 1


def test_a_worker_whose_successor_does_not_start_serves_on_and_it_is_said(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config('ready_timeout = "1s"')) as manager:
        before = serving(manager)
        release.spoil("exits")
        with Load(manager.target(), LIGHT) as load:
            done = manager.say("restart-worker", "web@1.1")
            assert done.code == 1
            assert "there is no successor of web@1.1 after 2 s" in done.stderr
            assert "goes on serving" in done.stderr
            answered(load, count=3)
        assert not load.result.failed, load.result.failures()
        assert before[1] <= serving(manager)[1]


def test_what_is_no_worker_that_serves_is_not_restarted_and_the_answer_says_which_are(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        for name, why in (
            ("web", "web is no worker"),
            ("job@1.1", "there is no service job"),
            ("web@1.7", "web@1.7 is not there"),
            ("web@zwei", "web@zwei is not there"),
        ):
            done = manager.say("restart-worker", name)
            assert done.code == 1
            assert why in done.stderr
        assert "those that can be replaced are: web@1.1" in done.stderr
