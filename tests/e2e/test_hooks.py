"""Hooks of a rollout: waited for, believed, bounded, and never run twice at once."""

from __future__ import annotations

import json
import os
import platform
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import (
    LIGHT,
    Ask,
    Release,
    answered,
    serving,
    unharmed,
    wait_gone,
    wait_in_log,
)
from tests.helpers.load import Load

KNOWS_STATUS = tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)  # of a stranger
UNKNOWN = "has ended, and nobody knows how"
OWN_HOOK = '[service.web.hooks]\n{} = ["./hook"]\n'
VETOES = ("before", "ready")


def hooks(**commands: str | dict[str, Any]) -> str:
    """Return the table of hooks: scripts of the shell, or tables with the key `run`."""
    lines = ["[service.web.hooks]"]
    for moment, what in commands.items():
        if isinstance(what, str):
            lines.append(f"{moment} = {json.dumps(['sh', '-c', what])}")
        else:
            run = json.dumps(["sh", "-c", what["run"]])
            lines.append(f'{moment} = {{ run = {run}, timeout = "{what["timeout"]}" }}')
    return "\n".join(lines) + "\n"


def configure(manager: Manager, release: Release, **commands: str | dict[str, Any]) -> None:
    manager.config.write_text(release.config() + hooks(**commands))


def hooked(parent: Path) -> Release:
    """Return a release whose own hook, ./hook, has nothing to do."""
    release = Release(parent)
    write_hook(release, "exit 0")
    return release


def deploy(release: Release, text: str) -> Path:
    """Deploy the next version with this hook, and return its gate."""
    release.deploy("2")
    write_hook(release, text)
    return gate(release)


def write_hook(release: Release, text: str) -> None:
    path = release.directory / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def gate(release: Release) -> Path:
    """Make what a hook can read from until somebody opens it."""
    path = release.directory / "gate"
    os.mkfifo(path)
    return path


def wait_in_hook(manager: Manager, moment: str) -> None:
    def runs() -> bool:
        return bool(manager.status()["services"]["web"]["hook"] == moment)

    wait_for(runs, f"hook {moment} to run")


def told_in(release: Release) -> str:
    """Return the line that a hook leaves in a release."""
    told = release.directory / "told"
    return wait_for(lambda: told.read_text() if told.exists() else "", "a hook to leave a line")


def versions(load: Load) -> set[str]:
    return {row.version for row in load.result.rows} - {""}


def test_before_runs_once_as_the_new_generation_before_any_of_its_workers(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config('env = { FROM = "config" }')) as manager:
        release.deploy("2")
        opened = gate(release)
        text = "echo $SOCKMGR_SERVICE $SOCKMGR_GENERATION $FROM $(pwd) >>ran; read x <gate"
        manager.config.write_text(
            release.config('env = { FROM = "config" }', "workers = 2") + hooks(before=text)
        )
        with Load(manager.target(), LIGHT) as load:
            asked = Ask(manager)
            wait_in_hook(manager, "before")
            status = manager.status()["services"]["web"]
            assert status["rollout"]["phase"] == "hook before"
            assert {worker["generation"] for worker in status["workers"]} == {1}
            assert "hook before" in manager.say("status").stdout
            opened.write_text("go\n")
            assert asked.verdict()["verdict"] == "committed"
            answered(load, "2")
        assert not load.result.failed
        assert (release.directory / "ran").read_text() == f"web 2 config {release.directory}\n"
        os.kill(min(serving(manager)[1]), signal.SIGKILL)  # the successor needs no hook
        assert manager.run("scale", "web", "3").code == 0
        wait_for(lambda: len(serving(manager)[1]) == 3, "three workers")
        assert len((release.directory / "ran").read_text().splitlines()) == 1


@pytest.mark.parametrize("moment", VETOES)
def test_a_hook_that_fails_takes_the_reload_back_and_is_quoted(moment: str, tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager) as load:
        release.deploy("2")
        configure(manager, release, **{moment: "echo no such column; exit 3"})
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        assert verdict["reason"] == f"hook {moment} exited with status 3"
        assert f"running hook {moment}" in done.stderr
        assert (verdict["worker"], verdict["output"]) == (f"web@2 {moment}", ["no such column"])
        answered(load, "1", 5)
        assert versions(load) == {"1"}, "somebody has met the new release"
        wait_gone(manager)


@pytest.mark.parametrize("moment", VETOES)
def test_a_hook_that_hangs_is_killed_with_all_that_it_started(moment: str, tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        release.deploy("2")
        hangs = "echo locked; setsid sleep 600 & sleep 600; echo never"
        configure(manager, release, **{moment: {"run": hangs, "timeout": "1s"}})
        (verdict,) = manager.reload().answer
        assert verdict["reason"] == f"hook {moment} did not end within 1 s"
        assert verdict["output"] == ["locked"]
        wait_gone(manager)


@pytest.mark.parametrize(("moment", "well"), [("before", True), ("ready", True), ("before", False)])
def test_a_manager_that_is_killed_in_a_hook_is_followed_by_one_that_waits_for_it(
    moment: str, well: bool, tmp_path: Path
) -> None:
    release = hooked(tmp_path)
    with Manager(tmp_path, release.config() + OWN_HOOK.format(moment)) as manager:
        text = f"echo ran >>ran; read x <gate; echo done; exit {0 if well else 3}"
        opened = deploy(release, text)
        with Load(manager.target(), LIGHT) as load:
            asked = Ask(manager)
            wait_in_hook(manager, moment)
            manager.kill9()
            asked.hang_up()
            manager.start()
            wait_in_log(manager, "hook adopted", "generation=2", timeout=30)
            opened.write_text("go\n")
            if well and KNOWS_STATUS:
                answered(load, "2")
                wait_in_log(manager, "committed", "generation=2", timeout=30)
            else:
                reason = UNKNOWN if not KNOWS_STATUS else "exited with status 3"
                wait_in_log(manager, "aborted", "generation=2", reason, timeout=30)
                answered(load, "1")
            assert f"web@2 {moment} | done" in manager.log
        assert not load.result.failed, load.result.failures()
        assert (release.directory / "ran").read_text() == "ran\n"


def test_a_hook_that_ends_while_there_is_no_manager_is_known_to_the_next(tmp_path: Path) -> None:
    release = hooked(tmp_path)
    with Manager(tmp_path, release.config() + OWN_HOOK.format("ready")) as manager:
        opened = deploy(release, "read x <gate; echo 1 >ended; exit 3")
        ended = release.directory / "ended"
        with Load(manager.target(), LIGHT) as load:
            asked = Ask(manager)
            wait_in_hook(manager, "ready")
            manager.kill9()
            asked.hang_up()
            opened.write_text("go\n")
            wait_for(ended.exists, "the end of the hook")
            manager.start()
            reason = "exited with status 3" if KNOWS_STATUS else UNKNOWN
            wait_in_log(manager, "aborted", "generation=2", reason, timeout=30)
            answered(load, "1")
        assert not load.result.failed, load.result.failures()


def test_an_upgrade_goes_on_with_the_hook_of_its_own_process(tmp_path: Path) -> None:
    release = hooked(tmp_path)
    with Manager(tmp_path, release.config() + OWN_HOOK.format("before")) as manager:
        opened = deploy(release, "echo ran >>ran; read x <gate")
        with Load(manager.target(), LIGHT) as load:
            asked = Ask(manager)
            wait_in_hook(manager, "before")
            asked.hang_up()
            assert manager.run("upgrade").code == 0
            wait_in_hook(manager, "before")
            assert (
                "no canary now: it is waiting for its hook before" in manager.say("promote").stderr
            )
            opened.write_text("go\n")
            answered(load, "2")
        assert not load.result.failed, load.result.failures()
        assert (release.directory / "ran").read_text() == "ran\n"


def test_hooks_that_only_hear_are_told_and_cannot_change_anything(tmp_path: Path) -> None:
    release = Release(tmp_path)
    told = "echo $0 $SOCKMGR_GENERATION $SOCKMGR_VERDICT $SOCKMGR_REASON >>told; exit 4"
    heard = {
        moment: f"set -- {moment}; {told.replace('$0', '$1')}"
        for moment in ("committed", "aborted")
    }
    config = release.config() + hooks(**heard)
    with Manager(tmp_path, config) as manager, unharmed(manager) as load:
        assert told_in(release) == "committed 1 committed\n"
        release.deploy("2", "exits")
        (verdict,) = manager.reload().answer
        assert told_in(release) == f"aborted 2 aborted {verdict['reason']}\n"
        wait_in_log(manager, "hook failed", "hook=aborted", "exited with status 4")
        answered(load, "1")


def test_the_end_of_each_worker_is_told_with_who_and_how(tmp_path: Path) -> None:
    release = Release(tmp_path)
    text = 'echo $SOCKMGR_WORKER $SOCKMGR_SLOT $SOCKMGR_PID "$SOCKMGR_REASON" >>told'
    with Manager(tmp_path, release.config() + hooks(worker_ended=text)) as manager:
        (pid,) = serving(manager)[1]
        os.kill(pid, signal.SIGKILL)
        assert told_in(release) == f"web@1.1 1 {pid} was killed by signal 9 (KILL)\n"


def test_a_first_start_waits_for_its_hook_and_tries_it_again(tmp_path: Path) -> None:
    release = Release(tmp_path)
    tries = "echo try >>tries; test -e schema"
    manager = Manager(tmp_path, release.config() + hooks(before=tries, ready="exit 9"))
    try:
        manager.start()
        wait_in_log(manager, "hook failed", "generation=1", "exited with status 1", timeout=30)
        assert "worker started" not in manager.log
        assert manager.status()["services"]["web"]["state"] == "down"
        (release.directory / "schema").touch()
        manager.wait_serving()
        assert len((release.directory / "tries").read_text().split()) > 1
        assert "hook=ready" not in manager.log  # nobody serves whom it could keep
    finally:
        manager.close()


def test_a_stop_ends_the_hook_that_runs(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        configure(manager, release, before="sleep 600")
        asked = Ask(manager)
        wait_in_hook(manager, "before")
        assert manager.stop() == 0
        assert "the manager is stopping" in asked.verdict()["reason"]
        assert not manager.leftovers()


BAD = {
    "prints much": ("yes | head -c 10000000; echo last; exit 1", "exited with status 1", "last"),
    "wants a terminal": ("read x || echo no input; exit 1", "exited with status 1", "no input"),
    "dies": ("echo bye; kill -SEGV $$", "was killed by signal 11 (SEGV)", "bye"),
    "is removed": ("rm gone; exec ./gone", "exited with status 127", "not found"),
}


def test_a_bad_hook_is_told_of_and_harms_nobody(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        for text, fault, last in BAD.values():
            configure(manager, release, before=text)
            (verdict,) = manager.reload().answer
            assert verdict["reason"] == f"hook before {fault}"
            assert last in verdict["output"][-1]
        wait_gone(manager)


def test_a_daemon_that_a_hook_starts_goes_on_until_the_manager_stops(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        daemon = "setsid sh -c 'echo $$ >daemon; exec sleep 600' >/dev/null 2>&1 &"
        configure(manager, release, before=f"{daemon} while ! test -s daemon; do sleep 0.1; done")
        assert manager.reload().code == 0
        pid = int((release.directory / "daemon").read_text())
        assert pid in manager.leftovers()
        assert manager.stop() == 0
        assert not manager.leftovers()


@pytest.mark.parametrize(("mode", "why"), [(None, "does not exist"), (0o644, "is not executable")])
def test_a_hook_that_cannot_be_run_is_an_error_of_the_config(
    mode: int | None, why: str, tmp_path: Path
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        if mode:
            (release.directory / "hook").write_text("#!/bin/sh\n")
            (release.directory / "hook").chmod(mode)
        manager.config.write_text(release.config() + '[service.web.hooks]\naborted = ["./hook"]\n')
        for done in (manager.reload(), manager.say("check", "-c", str(manager.config))):
            assert done.code
            assert "service.web.hooks.aborted = ./hook: " in done.stderr
            assert why in done.stderr


def test_a_crash_loop_runs_few_hooks_at_a_time_and_none_holds_it_up(tmp_path: Path) -> None:
    release = Release(tmp_path)
    text = "echo $$ >>told; sleep 600"
    with Manager(tmp_path, release.config("workers = 5") + hooks(worker_ended=text)) as manager:
        for pid in serving(manager)[1]:
            os.kill(pid, signal.SIGKILL)
        told = release.directory / "told"
        count = partial(lambda: told.exists() and len(told.read_text().split()) == 4)
        wait_for(count, "four hooks at a time")
        manager.wait_serving()
        assert len(told.read_text().split()) == 4
        assert manager.stop() == 0
        assert not manager.leftovers()
