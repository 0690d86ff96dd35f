"""A manager that is PID 1 of a container: what it lacks it does without, and says so once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.containers.box import EMPTY_DIRS, PYTHON, ROOT_OF_DOCKER, STRICT, Box, Kind
from tests.e2e.harness import wait_for
from tests.helpers.load import Result

LOAD = "short:rate=100"
CONFIG = f"""\
stop_delay = "60s"
ready_file = "/dev/shm/ready"

[listen]
http = "tcp://127.0.0.1:8000"

[service.web]
command = ["{PYTHON}", "/srv/shop/worker.py"]
workers = 2
cwd = "/srv/shop"
ready_timeout = "15s"
"""
USER_OF_WORKERS = '\nuser = "10002"'
KINDS = {
    "no rights, all read-only": (STRICT, CONFIG),
    "no rights, volumes for all": (EMPTY_DIRS, CONFIG),
    "root without SYS_PTRACE": (ROOT_OF_DOCKER, CONFIG + USER_OF_WORKERS),
}
kinds = pytest.mark.parametrize(("kind", "config"), KINDS.values(), ids=KINDS)


def answered(result: Result, number: int) -> None:
    """Wait for so many answers more."""
    wanted = result.answered + number
    wait_for(lambda: result.answered >= wanted, "answers")


@kinds
def test_reloads_lose_nothing_and_a_broken_one_is_taken_back(
    tmp_path: Path, kind: Kind, config: str
) -> None:
    with Box(tmp_path, config, kind) as box:
        assert box.pid_inside == 1
        with box.load(LOAD) as load:
            answered(load.result, 50)
            for version in ("2", "3"):
                box.deploy(version)
                done = box.sockmgr("reload")
                assert done.returncode == 0, done.stdout + done.stderr
                answered(load.result, 50)
            box.deploy("4", "exits")
            assert box.sockmgr("reload").returncode == 1
            box.deploy("5", "hangs")
            box.configure(config.replace("15s", "2s"))
            assert box.sockmgr("reload").returncode == 1
            answered(load.result, 50)
        assert not load.result.failed, load.result.failures()
        assert "web 2/2" in box.sockmgr("health").stdout


@kinds
def test_what_is_lacking_is_said_in_one_line_each(tmp_path: Path, kind: Kind, config: str) -> None:
    with Box(tmp_path, config, kind) as box:
        for _ in range(2):
            assert box.sockmgr("reload").returncode == 0
        hidden = kind is ROOT_OF_DOCKER
        assert len(box.lines("workers cannot be looked at")) == hidden
        assert len(box.lines("workers get no cgroups")) == 1
        assert len(box.lines("directory not used")) == (2 if kind is EMPTY_DIRS else 0)
        complaints = [line for line in box.log.splitlines() if line.startswith(("W ", "E "))]
        assert len(complaints) == hidden + 2 * (kind is EMPTY_DIRS), complaints


@kinds
def test_a_worker_that_is_killed_costs_what_it_had_in_hand(
    tmp_path: Path, kind: Kind, config: str
) -> None:
    with Box(tmp_path, config, kind) as box:
        with box.load(LOAD) as load:
            answered(load.result, 50)
            os.kill(box.workers()[0], signal.SIGKILL)
            wait_for(lambda: len(box.lines("worker ready")) == 3, "its successor")
            answered(load.result, 50)
        assert len(load.result.failed) <= 1, load.result.failures()
        assert box.sockmgr("health", "--ready").returncode == 0


@kinds
def test_told_to_stop_it_is_unready_and_who_goes_elsewhere_by_then_loses_nothing(
    tmp_path: Path, kind: Kind, config: str
) -> None:
    with Box(tmp_path, config, kind) as box:
        with box.load(LOAD) as load:
            answered(load.result, 50)
            assert box.run("test", "-e", "/dev/shm/ready").returncode == 0
            box.terminate()
            wait_for(lambda: box.sockmgr("health", "--ready").returncode == 1, "it to be unready")
            assert box.run("test", "-e", "/dev/shm/ready").returncode == 1
            assert box.sockmgr("health").returncode == 0
            answered(load.result, 50)
        assert not load.result.failed, load.result.failures()
        box.terminate()  # leaves out the rest of the delay
        assert box.wait() == 0


def test_orphans_of_commands_that_were_run_in_the_container_are_reaped(tmp_path: Path) -> None:
    with Box(tmp_path, CONFIG) as box:
        assert box.run("/bin/sh", "-c", "for i in 1 2 3; do sleep 0.2 & done").returncode == 0
        wait_for(lambda: not box.children("sleep"), "them to be gone")


def test_health_fails_where_no_manager_answers_and_of_a_service_that_is_not_there(
    tmp_path: Path,
) -> None:
    with Box(tmp_path, CONFIG) as box:
        assert box.sockmgr("health", "web").returncode == 0
        assert box.sockmgr("health", "nothing").returncode == 1
        assert box.sockmgr("health", "--control", "/dev/shm/none.sock").returncode == 1


def test_on_a_unix_socket_nobody_can_knock_and_the_one_line_says_what_to_do(tmp_path: Path) -> None:
    config = CONFIG.replace("tcp://127.0.0.1:8000", "unix:///run/web.sock")
    ready = '\nready = { exec = ["true"], accepting = false }'
    with Box(tmp_path, config + USER_OF_WORKERS + ready, ROOT_OF_DOCKER) as box:
        box.configure((config + USER_OF_WORKERS).replace("15s", "1s"))
        assert box.sockmgr("reload").returncode == 1
        (line,) = box.lines("workers cannot be looked at")
        assert "accepting = false" in line
