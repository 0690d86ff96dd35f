"""Descriptors run out: the manager goes on, tells why it cannot start a worker, and loses none."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, Release
from tests.helpers.load import Load

PLENTY = 20000


def open_files(pid: int) -> tuple[int, int]:
    """Return the soft and the hard limit of a process."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def leave_free(manager: Manager, number: int) -> None:
    """Let the manager open so many more files, and not one beside them."""
    manager.wait_unasked()  # a connection that it closes only now would be one more
    used = {int(fd.name) for fd in Path(f"/proc/{manager.pid}/fd").iterdir()}
    free = [fd for fd in range(PLENTY) if fd not in used]
    resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, (free[number], PLENTY))


@pytest.mark.parametrize("accept", ["shared", "per-worker"])
def test_however_few_descriptors_a_reload_finds_the_manager_lives_and_the_service_answers(
    accept: str, tmp_path: Path
) -> None:
    config = Release(tmp_path).config("workers = 4", f'accept = "{accept}"')
    with Manager(tmp_path, config) as manager, Load(manager.target(), [*LIGHT]) as load:
        for left in range(1, 36, 3):
            leave_free(manager, left)
            done = manager.reload()
            resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, (PLENTY, PLENTY))
            assert manager.alive, manager.log
            if done.stdout and done.code:
                assert re.search("started: too few desc", done.answer[0]["reason"]), done.stdout
            else:
                assert done.code == 0 or "too few desc" in done.stderr, done.stderr
        assert done.code == 0, done.stdout
        result = load.stop()
    assert not result.failed, result.failures()


def test_64_descriptors_are_enough_to_reload_eight_workers(tmp_path: Path) -> None:
    config = Release(tmp_path).config("workers = 8")
    with Manager(tmp_path, config, under=["prlimit", "--nofile=64:64"]) as manager:
        done = manager.reload()
        assert done.code == 0, done.stdout


def test_a_worker_that_dies_while_no_descriptor_is_left_is_replaced_when_there_are_some(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, Release(tmp_path).config("workers = 2")) as manager:
        (victim, other) = (worker["pid"] for worker in manager.workers())
        leave_free(manager, 0)
        os.kill(manager.pid, signal.SIGHUP)
        wait_for(lambda: "reload refused" in manager.log, "the reload that is refused")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: "cannot start worker" in manager.log, "the start that fails")
        resource.prlimit(manager.pid, resource.RLIMIT_NOFILE, (PLENTY, PLENTY))
        manager.wait_serving()
        assert other in [worker["pid"] for worker in manager.workers()]


def test_the_manager_may_open_what_its_hard_limit_allows_and_workers_get_the_soft_one(
    tmp_path: Path,
) -> None:
    under = ["prlimit", "--nofile=1024:4096"]
    with Manager(tmp_path, Release(tmp_path).config(), under=under) as manager:
        assert open_files(manager.pid) == (4096, 4096)
        assert open_files(manager.workers()[0]["pid"]) == (1024, 4096)
        assert manager.run("upgrade").code == 0
        assert manager.reload().code == 0
        assert open_files(manager.pid) == (4096, 4096)
        assert open_files(manager.workers()[0]["pid"]) == (1024, 4096)


def test_a_limit_in_the_config_is_what_the_workers_get(tmp_path: Path) -> None:
    config = Release(tmp_path).config("limits = { nofile = 512 }")
    with Manager(tmp_path, config) as manager:
        assert open_files(manager.workers()[0]["pid"])[0] == 512


def test_what_the_keeper_could_not_take_is_given_to_it_again(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        keeper = manager.keeper
        held = len(list(Path(f"/proc/{keeper}/fd").iterdir()))
        _, hard = resource.prlimit(keeper, resource.RLIMIT_NOFILE, (held, PLENTY))
        assert manager.reload().code == 0
        wait_for(lambda: "keeper does not keep" in manager.log, "the keeper to be full")
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, (hard, hard))
        wait_for(lambda: "keeper keeps again" in manager.log, "the keeper to be given all")
        before = manager.workers()
        manager.kill9()
        manager.start()
        manager.wait_serving()
        assert [each["pid"] for each in manager.workers()] == [each["pid"] for each in before]
        assert "missing" not in manager.log


@pytest.mark.parametrize("limit", range(9, 33, 3))
def test_a_manager_that_may_open_too_little_to_take_over_leaves_all_as_it_is(
    limit: int, tmp_path: Path
) -> None:
    config = Release(tmp_path).config("workers = 2")
    with Manager(tmp_path, config) as manager:
        before = [worker["pid"] for worker in manager.workers()]
        manager.kill9()
        told = len(manager.log)
        poor = Manager(tmp_path, config, under=["prlimit", f"--nofile={limit}:{limit}"])
        poor.start()
        wait_for(lambda: not poor.alive or "worker adopted" in manager.log[told:], "its start")
        if poor.alive:
            poor.kill9()
        else:
            assert poor.wait() == 1
            assert "many open files" in manager.log[told:] or "too few desc" in manager.log[told:]
        assert "Traceback" not in manager.log
        manager.start()
        manager.wait_serving()
        assert [worker["pid"] for worker in manager.workers()] == before
