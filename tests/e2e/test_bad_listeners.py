"""Workers that harm the sockets they were lent: the manager notices, mends and names them."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import (
    LIGHT,
    Release,
    answered,
    serving,
    unharmed,
    wait_gone,
    wait_in_log,
)
from tests.helpers.asking import ask
from tests.helpers.load import Load, Target
from tests.helpers.proc import sleeps


def version(target: Target) -> str:
    """Return the version that answers now; empty if none does."""
    return ask(target).rpartition(b'"version": "')[2].decode().rstrip('"}')


def queued(manager: Manager) -> int:
    """Return how many connections wait."""
    number: int = manager.status()["listeners"]["http"]["queue"]
    return number


def test_a_worker_that_closes_its_listener_costs_nothing_while_a_sibling_serves(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("workers = 2")) as manager:
        assert ask(manager.target(), "/do/close")
        with unharmed(manager) as load:
            answered(load, count=10)
        with Load(manager.target(), LIGHT) as load:
            release.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed


def test_what_waits_for_a_worker_that_closed_its_listener_is_answered_after_the_reload(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("drain_timeout = 1")) as manager:
        assert ask(manager.target(), "/do/close")
        with Load(manager.target(), ["short:rate=20,timeout=8"]) as load:
            wait_for(lambda: queued(manager) >= 5, "connections to wait")
            release.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed, load.result.failures()


def test_a_queue_that_nobody_ever_empties_is_given_up_and_keeps_the_manager_no_longer_awake(
    tmp_path: Path,
) -> None:
    config = """
    [listen]
    http = "tcp://127.0.0.1:0"
    [service.web]
    command = ["sleep", "1000"]
    ready = { delay = 0.1 }
    drain_timeout = 0.5
    rollout.probation = 0
    """
    with Manager(tmp_path, config) as manager, socket.socket() as client:
        client.connect(manager.target().address)
        assert manager.reload().code == 0
        wait_in_log(manager, "worker draining", "web@2.2", "is empty or given up")
        wait_for(lambda: len(manager.workers()) == 1, "the rescue worker to be gone")
        assert queued(manager) == 1
        wait_for(lambda: sleeps(manager.pid), "the manager to come to rest", timeout=5)


def test_a_tcp_listener_that_a_worker_shut_down_listens_again_at_once(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config("workers = 2")) as manager:
        target, before = manager.target(), serving(manager)
        assert ask(target, "/do/shutdown")
        line = wait_in_log(manager, "listener repaired", "a worker shut the socket down; it list")
        assert "shut down by one of web@1.1, web@1.2" in line
        assert wait_for(lambda: version(target), "an answer", timeout=2) == "1"
        with Load(target, LIGHT) as load:
            answered(load, count=5)
            release.deploy("2")
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed
        assert before[0] == 1


def test_a_shutdown_is_told_each_time(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        target = manager.target()
        for times in (1, 2, 3):
            assert wait_for(partial(ask, target, "/do/shutdown"), "an answer", timeout=5)
            wait_for(partial(told, manager, "shut the socket down", times), "the repair")


def told(manager: Manager, what: str, times: int) -> bool:
    """Whether the log has at least so many lines with these words."""
    return manager.log.count(what) >= times


def test_the_revived_listener_has_its_port_and_its_backlog(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        before = manager.status()["listeners"]["http"]
        assert ask(manager.target(), "/do/shutdown")
        wait_in_log(manager, "listener repaired")
        after = manager.status()["listeners"]["http"]
        assert (after["address"], after["backlog"]) == (before["address"], before["backlog"])
        with unharmed(manager):
            pass


def test_a_worker_that_shuts_the_listener_down_again_and_again_keeps_nobody_awake(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        target = manager.target()
        for _ in range(5):
            assert wait_for(partial(ask, target, "/do/shutdown"), "an answer", timeout=5)
        assert wait_for(lambda: version(target), "an answer", timeout=5) == "1"
        began = time.monotonic()
        manager.status()
        assert time.monotonic() - began < 1


def wait_only(manager: Manager, generation: int) -> None:
    """Wait until older ones have left: at a unix socket they may accept until they are told to."""
    wait_for(lambda: {w["generation"] for w in manager.workers()} == {generation}, "them to leave")


def test_a_unix_listener_that_a_worker_shut_down_is_bound_anew_with_workers_that_accept_there(
    tmp_path: Path,
) -> None:
    """Unlike TCP it cannot listen again: the old workers hold a dead socket and are replaced."""
    release = Release(tmp_path)
    path = tmp_path / "http.sock"
    with Manager(tmp_path, release.config("workers = 2", address=f"unix://{path}")) as manager:
        target, (_, before) = manager.target(), serving(manager)
        assert ask(target, "/do/shutdown")
        wait_in_log(
            manager, "listener repaired", "bound anew", "shut down by one of web@1.1, web@1.2"
        )
        assert wait_for(lambda: version(target), "an answer", timeout=10) == "1"
        wait_for(lambda: not serving(manager)[1] & before, "new workers")
        manager.wait_serving()
        with unharmed(manager):
            pass
        release.deploy("2")
        assert manager.reload().code == 0
        wait_only(manager, 2)
        assert version(target) == "2"
        wait_gone(manager)


@pytest.mark.parametrize("ready", ["", 'ready = { exec = ["true"] }'])
def test_a_backlog_that_a_server_shrinks_as_it_starts_is_restored_without_a_word(
    ready: str, tmp_path: Path
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config(ready)) as manager:
        backlog = manager.status()["listeners"]["http"]["backlog"]
        release.deploy("2", "shrinks")
        with Load(manager.target(), LIGHT) as load:
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed
        assert "backlog" not in manager.log
        assert manager.status()["listeners"]["http"]["backlog"] == backlog


def test_a_unix_path_that_a_worker_unlinked_is_there_again(tmp_path: Path) -> None:
    """As Gunicorn does at its end when it was told `fd://`."""
    release = Release(tmp_path)
    path = tmp_path / "http.sock"
    with Manager(tmp_path, release.config(address=f"unix://{path}")) as manager:
        inode = path.stat().st_ino
        kept = socket.socket(socket.AF_UNIX)
        with kept:
            kept.connect(str(path))  # accepted before: stays
            kept.sendall(b"GET /do/unlink HTTP/1.1\r\n\r\n")
            assert kept.recv(65536)
        release.deploy("2")
        assert manager.reload().code == 0
        wait_in_log(manager, "listener repaired", f"a worker removed {path}; it is there again")
        assert path.stat().st_ino == inode
        wait_only(manager, 2)
        assert version(Target.at_path(str(path))) == "2"
        with unharmed(manager):
            pass
