"""The manager's own paths are removed: they are there again, and no worker suffers from it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for

NAMES = ("control.sock", "control.notify", "control.keeper", "control.state")
WORKER = """
import os, socket
listener = socket.socket(fileno=3)
address = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", address.replace("@", chr(0), 1) if address[0] == "@" else address)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
"""

# Before that: it waits to be told to speak, and leaves a mark when it has, in vain.
WAITS = """
import pathlib, socket, time
place = pathlib.Path({place!r})
while not (place / "speak").exists():
    time.sleep(0.01)
speak = socket.socket.sendto
def in_vain(*arguments):
    try:
        speak(*arguments)
    except FileNotFoundError:
        (place / "unheard").touch()
socket.socket.sendto = in_vain
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Run a manager whose workers say themselves that they are ready, and find its paths below."""
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    manager = Manager(
        tmp_path,
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n'
        f'[service.web]\ncommand = ["{sys.executable}", "-I", "-S", "{program}"]\n'
        'ready = "notify"\nready_timeout = "20s"\nworkers = 2\n'
        "[service.web.rollout]\nprobation = 0.2\n",
    )
    manager.control = tmp_path / "run" / "sockmgr" / "control.sock"
    manager.control.parent.mkdir(parents=True, mode=0o711)
    with manager:
        yield manager


def wait_for_all(manager: Manager) -> None:
    place = manager.control.parent
    wait_for(lambda: all((place / name).exists() for name in NAMES), "all paths to be there")
    wait_for(lambda: manager.run("status", timeout=5).code == 0, "an answer there")


def pids(manager: Manager) -> set[int]:
    return {worker["pid"] for worker in manager.workers() if worker["state"] == "ready"}


def assert_survived(manager: Manager) -> None:
    """Show that reloads, replacements and another manager find everything where it is now."""
    assert manager.reload().code == 0
    victim = min(pids(manager))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(pids(manager) - {victim}) == 2, "the worker to be replaced")
    before = pids(manager)
    manager.kill9()
    manager.start()
    manager.wait_serving()
    assert pids(manager) == before
    assert "not ready within" not in manager.log


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_was_removed_is_there_again_and_told_once(name: str, manager: Manager) -> None:
    (manager.control.parent / name).unlink()
    wait_for(lambda: manager.events("paths were removed"), "the event")
    wait_for_all(manager)
    assert_survived(manager)
    assert len(manager.events("paths were removed")) == 1


def test_a_directory_that_was_removed_is_there_again_as_it_was(manager: Manager) -> None:
    shutil.rmtree(manager.control.parent)
    wait_for_all(manager)
    assert stat.S_IMODE(manager.control.parent.stat().st_mode) == 0o711
    assert_survived(manager)


def test_while_there_is_no_place_for_them_workers_are_heard_and_then_all_is_there_again(
    manager: Manager,
) -> None:
    run, gone = manager.control.parent.parent, manager.control.parent.parent.with_name("gone")
    before = pids(manager)
    run.rename(gone)
    os.kill(manager.pid, signal.SIGHUP)
    wait_for(lambda: manager.log.count(" committed ") == 1, "the reload to commit")
    assert manager.log.count("paths are gone") == 1
    assert "not ready within" not in manager.log
    run.mkdir()
    wait_for_all(manager)
    assert not pids(manager) & before
    assert_survived(manager)


def test_an_upgrade_in_a_directory_that_others_may_write_goes_on_and_says_so(
    manager: Manager,
) -> None:
    manager.control.parent.chmod(0o1777)  # as /tmp, where a version before was content to be
    assert manager.run("upgrade").code == 0
    wait_for(lambda: "control socket is not ours alone" in manager.log, "a word of it")
    manager.wait_serving()
    assert manager.reload().code == 0
    assert "paths are gone" not in manager.log
    manager.kill9()
    manager.start()
    assert manager.wait() == 1
    assert "every user may write to" in manager.log
    manager.control.parent.chmod(0o700)
    manager.start()
    manager.wait_serving()


def test_a_worker_that_spoke_while_nobody_could_hear_it_is_not_killed_for_that(
    manager: Manager,
) -> None:
    program = manager.directory / "worker.py"
    program.write_text(WAITS.format(place=str(manager.directory)) + WORKER)
    os.kill(manager.pid, signal.SIGHUP)
    wait_for(lambda: len(manager.workers()) > 2, "the new workers")
    os.kill(manager.pid, signal.SIGSTOP)
    manager.control.with_suffix(".notify").unlink()
    (manager.directory / "speak").touch()
    wait_for((manager.directory / "unheard").exists, "one to speak in vain")
    os.kill(manager.pid, signal.SIGCONT)
    wait_for(lambda: " committed " in manager.log, "the reload to commit")
    assert "not ready within" not in manager.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_is_mounted_over_the_directory_has_the_paths_at_once(tmp_path: Path) -> None:
    config = (
        (
            f'[service.web]\ncommand = ["{sys.executable}", "-I", "-S", "-c", "import time; '
            'time.sleep(600)"]\nlisten = []\nready = {{ delay = 0.1 }}\n'
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )
    manager = Manager(tmp_path, config, under=["unshare", "--mount"])
    manager.control = tmp_path / "run" / "control.sock"
    manager.control.parent.mkdir(mode=0o700)
    with manager:
        inside = ["nsenter", f"--target={manager.pid}", "--mount"]
        mount = ["mount", "-t", "tmpfs", "-o", "mode=0700", "none", str(manager.control.parent)]
        subprocess.run([*inside, *mount], check=True)
        wait_for(lambda: "paths were removed" in manager.log, "them to be missed")
        listed = subprocess.run(
            [*inside, "ls", str(manager.control.parent)], capture_output=True, text=True, check=True
        )
        assert listed.stdout.split() == sorted(NAMES)
        asked = [sys.executable, "-m", "sockmgr", "status", "--control", str(manager.control)]
        assert subprocess.run([*inside, *asked], capture_output=True, check=False).returncode == 0
