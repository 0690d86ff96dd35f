"""Without systemd: a manager that was killed is followed by one that goes on with its workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import Ask, Release, answered, serving, wait_gone, wait_in_log
from tests.helpers.load import Load

LOAD = ["short:rate=100"]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_next_manager_serves_with_the_same_workers_and_no_request_is_lost(
    tmp_path: Path, workers: int
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config(f"workers = {workers}")) as manager:
        before = serving(manager)
        with Load(manager.target(), LOAD) as load:
            for _ in range(3):
                manager.kill9()
                answered(load, count=20)  # with no manager at all
                manager.start()
                manager.wait_serving()
                assert serving(manager) == before
            release.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed, load.result
        wait_for(lambda: not before[1] & serving(manager)[1], "the new workers alone")
        manager.stop()
        assert not manager.leftovers()


def test_a_rollout_is_finished_by_the_next_manager(tmp_path: Path) -> None:
    release = Release(tmp_path, fault="says ready")
    with Manager(tmp_path, release.config('ready = "notify"', "workers = 2")) as manager:
        with Load(manager.target(), LOAD) as load:
            gate = release.hold("2")
            reload = Ask(manager)
            wait_for(lambda: len(manager.workers()) == 4, "both workers of the rollout")
            manager.kill9()
            reload.hang_up()
            manager.start()
            wait_in_log(manager, "worker adopted", "web@2.2")
            gate.open()
            answered(load, "2")
            wait_in_log(manager, "committed", "generation=2")
        assert not load.result.failed, load.result


def test_a_worker_that_died_while_there_was_no_manager_is_replaced(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("workers = 2")) as manager:
        _, (dead, alive) = serving(manager)
        manager.kill9()
        os.kill(dead, signal.SIGKILL)
        manager.start()
        manager.wait_serving()
        wait_for(lambda: len(serving(manager)[1]) == 2, "two workers")
        wait_for(lambda: dead not in serving(manager)[1], "a successor")
        assert alive in serving(manager)[1]


def test_a_config_that_was_broken_meanwhile_is_told_and_what_ran_goes_on(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        before = serving(manager)
        manager.kill9()
        manager.config.write_text("name = ")
        manager.start()
        wait_in_log(manager, "reload refused", "this is not TOML")
        assert serving(manager) == before


def test_a_manager_that_is_stopped_leaves_nobody_even_if_it_adopted_its_workers(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("workers = 2")) as manager:
        manager.kill9()
        manager.start()
        manager.wait_serving()
        wait_gone(manager)
        assert manager.stop() == 0
        assert not manager.leftovers()
