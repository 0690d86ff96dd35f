"""`sockmgr upgrade`: the manager becomes new code in place, or goes on with the old."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.package import Package
from tests.e2e.programs.release import (
    LIGHT,
    Ask,
    Release,
    answered,
    serving,
    wait_gone,
    wait_in_log,
)
from tests.helpers.load import Load
from tests.helpers.proc import descriptors, field, zombies

MEGABYTE = 1024  # VmRSS is in kB


@contextlib.contextmanager
def running(directory: Path, *keys: str, fault: str = "none") -> Iterator[tuple[Manager, Release]]:
    """Run a manager of a copy of sockmgr (`directory`/code) with two workers of version 1."""
    release = Release(directory, fault=fault)
    config = release.config("workers = 2", *keys)
    with Manager(directory, config, code=directory / "code") as manager:
        yield manager, release


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def version(manager: Manager) -> str:
    found: str = manager.status()["manager"]["version"]
    return found


@pytest.mark.timeout(300)  # it works all the time, and may have a fifth of a processor
def test_eight_upgrades_under_load_lose_nothing_and_nothing_grows(
    tmp_path: Path, package: Package
) -> None:
    with running(tmp_path) as (manager, _):
        first, workers = manager.pid, serving(manager)
        with Load(manager.target(), ["short:rate=100"]) as load:
            for number in range(8):
                package.install(f"9.{number}")
                done = manager.run("upgrade")
                assert (done.code, done.answer["pid"]) == (0, first), done.stderr
                assert version(manager) == f"9.{number}"
                if number == 0:
                    wait_gone(manager)
                    before, size = descriptors(first), field(first, "VmRSS")
            answered(load, count=20)
        assert not load.result.failed, load.result
        assert serving(manager) == workers
        # The last client's connection may not have been closed yet when they were counted.
        wait_for(lambda: len(descriptors(first)) <= len(before), "as few descriptors as before")
        assert zombies(first) == 0
        assert field(first, "Threads") == 1
        assert field(first, "VmRSS") < size + 2 * MEGABYTE
        wait_gone(manager)


def test_a_reload_works_as_ever_after_an_upgrade(tmp_path: Path, package: Package) -> None:
    with running(tmp_path) as (manager, release):
        with Load(manager.target(), LIGHT) as load:
            package.install("9")
            assert manager.run("upgrade").code == 0
            release.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed, load.result
        wait_gone(manager)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("manager/service/service.py", "def :\n", "SyntaxError"),
        (
            "manager/manager.py",
            "import a_module_that_nobody_installed\n",
            "a_module_that_nobody_installed",
        ),
    ],
)
def test_new_code_that_cannot_be_loaded_leaves_the_old_running_and_says_why(
    tmp_path: Path, package: Package, file: str, text: str, reason: str
) -> None:
    with running(tmp_path) as (manager, release):
        before, good = (version(manager), serving(manager)), package.read(file)
        with Load(manager.target(), LIGHT) as load:
            package.change(file, text)
            done = manager.say("upgrade")
            assert done.code == 1
            assert reason in done.stderr
            assert "nothing was replaced" in done.stderr
            assert (version(manager), serving(manager)) == before
            release.deploy("2")
            assert manager.reload().code == 0
            package.change(file, good)
            package.install("9")
            assert manager.say("upgrade").code == 0
        assert not load.result.failed, load.result
        assert version(manager) == "9"


def test_new_code_that_cannot_read_the_state_leaves_the_old_running_and_says_why(
    tmp_path: Path, package: Package
) -> None:
    with running(tmp_path) as (manager, _):
        before = (version(manager), serving(manager))
        text = package.read("fleet/snapshot.py")
        older = "\n".join(
            "VERSION = 0" if line.startswith("VERSION = ") else line for line in text.splitlines()
        )
        assert older != text
        package.change("fleet/snapshot.py", older)
        done = manager.say("upgrade")
        assert done.code == 1
        assert "written by a newer sockmgr" in done.stderr
        assert (version(manager), serving(manager)) == before


def test_usr2_upgrades_too(tmp_path: Path, package: Package) -> None:
    with running(tmp_path) as (manager, _):
        before = serving(manager)
        package.install("9")
        os.kill(manager.pid, signal.SIGUSR2)
        wait_in_log(manager, "upgrading")
        wait_for(lambda: version(manager) == "9", "the new version")
        assert serving(manager) == before
        package.change("manager/service/service.py", "def :\n")
        os.kill(manager.pid, signal.SIGUSR2)
        wait_in_log(manager, "upgrade refused")
        assert serving(manager) == before


def test_an_upgrade_during_a_rollout_comes_after_its_verdict(
    tmp_path: Path, package: Package
) -> None:
    with running(tmp_path, 'ready = "notify"', fault="says ready") as (manager, release):
        with Load(manager.target(), LIGHT) as load:
            gate = release.hold("2")
            reload = Ask(manager)
            wait_for(lambda: len(manager.workers()) == 4, "both workers of the rollout")
            package.install("9")
            os.kill(manager.pid, signal.SIGUSR2)
            wait_for(lambda: is_leaving(manager), "the new code to be proven")
            gate.open()
            assert reload.verdict()["verdict"] == "committed"
            answered(load, "2")
            wait_for(lambda: version(manager) == "9", "the new version")
        assert not load.result.failed, load.result
        assert serving(manager)[0] == 2


def is_leaving(manager: Manager) -> bool:
    """Tell whether the manager begins nothing new."""
    return "is being upgraded" in manager.say("scale", "web", "2").stderr
