"""The ways to be ready: each is believed of the worker itself only, and has a deadline."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.apps import ROOT
from tests.e2e.harness import Manager
from tests.e2e.programs.release import (
    LIGHT,
    Release,
    answered,
    serving,
    unharmed,
    wait_gone,
    wait_in_log,
)
from tests.helpers.load import Load

IMPATIENT = "ready_timeout = 3"  # a busy machine starts worker and command in that


def test_a_foreign_ready_message_counts_for_nobody(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        gate = release.hold("2")
        manager.config.write_text(release.config('ready = "notify"'))
        with Load(manager.target(), LIGHT) as load:
            asked = subprocess.Popen(
                [*manager._command("reload"), "--json"],
                cwd=ROOT, env=manager._env, stdout=subprocess.PIPE,
            )  # fmt: skip
            wait_in_log(manager, "worker started", "web@2.1")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                for message in (b"READY=1", b"x" * 5000, b"READY=1"):
                    sock.sendto(message, str(manager.control.with_suffix(".notify")))
            wait_in_log(manager, "notify datagrams ignored", "foreign=")
            rollout = manager.status()["services"]["web"]["rollout"]
            assert (rollout["phase"], rollout["ready"]) == ("booting", 0)
            gate.open()
            assert asked.communicate(timeout=10)[0]
            assert asked.returncode == 0
            answered(load, "2")
        assert not load.result.failed


def test_a_delay_is_waited_for(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.deploy("2")
        manager.config.write_text(release.config("ready = { delay = 0.7 }"))
        done = manager.reload()
        assert done.code == 0
        assert done.seconds > 0.7
        took = wait_in_log(manager, "worker ready", "web@2.1").rpartition("took=")[2]
        assert 0.7 <= float(took) < 1.5


def test_a_readiness_command_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        release.deploy("2")
        manager.config.write_text(release.config('ready = { exec = ["nowhere-to-be-found"] }'))
        done = manager.reload()
        assert done.code == 2
        assert "service.web.ready.exec = nowhere-to-be-found: " in done.stderr
        assert "not in the PATH of the workers" in done.stderr


def script(release: Release, text: str) -> str:
    """Put a readiness command into the release; return its name."""
    path = release.directory / "is-ready"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_readiness_command_is_asked_again_until_it_says_yes(tmp_path: Path) -> None:
    release = Release(tmp_path)
    asks = script(release, 'echo "$SOCKMGR_WORKER_PID" >>asked; test $(wc -l <asked) -eq 3')
    with Manager(tmp_path, release.config()) as manager:
        release.deploy("2")
        manager.config.write_text(release.config(f'ready = {{ exec = ["{asks}"] }}'))
        with Load(manager.target(), LIGHT) as load:
            assert manager.reload().code == 0
            answered(load, "2")
        assert not load.result.failed
        (pid,) = serving(manager)[1]
        assert (release.directory / "asked").read_text().split() == [str(pid)] * 3
        wait_gone(manager)


@pytest.mark.parametrize(
    ("more", "code"), [("", 1), (", accepting = false", 0)], ids=["seen", "unseen"]
)
def test_a_readiness_command_speaks_for_a_worker_that_accepts_or_is_said_not_to_be_seen(
    more: str, code: int, tmp_path: Path
) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.deploy("2", "hangs")
        asks = f'ready = {{ exec = ["true"]{more} }}'
        manager.config.write_text(release.config(asks, "ready_timeout = 0.5"))
        done = manager.reload()
        assert done.code == code
        if code:
            (verdict,) = done.answer
            assert "held open: still loading" in verdict["output"][-1]
            assert "so its command true was not run (accepting = false" in verdict["output"][-1]


def test_a_restart_of_a_worker_on_a_shared_queue_does_not_trust_what_its_sibling_answers(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path)
    keys = ('ready = { exec = ["true"] }', 'accept = "shared"', "ready_timeout = 3")
    with Manager(tmp_path, release.config(*keys)) as manager, unharmed(manager):
        release.spoil("hangs")
        done = manager.run("restart-worker", "web@1.1")
        assert done.code == 1
        wait_in_log(manager, "worker killed", "web@1.2", "not ready")


def test_without_its_readiness_command_no_worker_starts_until_it_is_back(tmp_path: Path) -> None:
    release = Release(tmp_path)
    asks = script(release, "exit 0")
    with Manager(tmp_path, release.config(f'ready = {{ exec = ["{asks}"] }}')) as manager:
        (pid,) = serving(manager)[1]
        moved = Path(asks).rename(f"{asks}-moved")
        os.kill(pid, signal.SIGKILL)
        wait_in_log(
            manager, "cannot start worker", f"its readiness command {asks} is not there, or not"
        )
        moved.rename(asks)
        manager.wait_serving()
        assert serving(manager)[1] != {pid}


def test_a_readiness_command_is_found_in_the_path_of_the_worker(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config('ready = { exec = ["true"] }')) as manager:
        assert serving(manager)[0] == 1


def test_a_worker_that_hangs_at_import_is_told_of_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        text = "import time; print('waiting for the database'); time.sleep(1000)"
        waits = f'command = ["{sys.executable}", "-c", "{text}"]'
        lines = release.config(IMPATIENT).splitlines()
        command = next(n for n, line in enumerate(lines) if line.startswith("command"))
        manager.config.write_text("\n".join([*lines[:command], waits, *lines[command + 1 :]]))
        done = manager.reload()
        assert done.code == 1
        assert "waiting for the database" in done.answer[0]["output"]


BAD_COMMANDS = {
    "says no": ("echo not yet; exit 3", r"exited with status 3"),
    "hangs": ("echo thinking; exec sleep 1000", r"still runs"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_a_readiness_command_that_never_says_yes_is_named_with_what_it_did(
    name: str, tmp_path: Path
) -> None:
    text, said = BAD_COMMANDS[name]
    release = Release(tmp_path)
    asks = script(release, text)
    with Manager(tmp_path, release.config()) as manager, unharmed(manager):
        release.deploy("2")
        keys = (IMPATIENT, f'ready = {{ exec = ["{asks}"] }}')
        manager.config.write_text(release.config(*keys))
        done = manager.reload()
        (verdict,) = done.answer
        assert done.code == 1
        assert re.search(r"not ready within 3 s", verdict["reason"])
        assert asks in verdict["output"][-1]
        assert re.search(said, verdict["output"][-1]), verdict["output"]
        wait_gone(manager)
