"""`sockmgr events` and `sockmgr restart-worker`, beside a running manager."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import Release


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
