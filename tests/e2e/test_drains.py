"""Drains that do not go well, and reloads that fail while nobody serves: what people are told."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import Release, wait_in_log

STREAM = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        await asyncio.sleep(0.2)
"""

# It accepts and reads, and dies of what it does at TERM.
BRITTLE = """
import os, signal
from sockmgr import worker
(http,) = worker.listeners("http")
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
while True:
    http.accept()
"""


@contextlib.contextmanager
def streaming(manager: Manager) -> Iterator[socket.socket]:
    """Hold a response open that has begun."""
    host, port = manager.status()["listeners"]["http"]["address"][6:].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000)
        yield client


def test_the_oldest_of_too_many_drains_is_asked_to_end_before_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "stream.py").write_text(STREAM)
    config = (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\napp = "stream:app"\n'
        f"cwd = '{tmp_path}'\ndrain_timeout = 600\n"
        "[service.web.rollout]\nmax_draining = 1\nprobation = 0\n"
    )
    with Manager(tmp_path, config) as manager, streaming(manager) as first:
        (verdict,) = manager.reload().answer
        assert verdict["receipt"]["finishing"] == 0
        with streaming(manager):
            told = manager.say("reload").stdout
            assert "1 worker must end now: too many generations are draining" in told
            wait_in_log(manager, "worker told to finish now worker=web@1.1", "max_draining")
            while first.recv(1 << 16):  # to its end: it is closed, and not reset
                pass
            ended = wait_in_log(manager, "worker ended worker=web@1.1", timeout=20)
            assert "how=clean" in ended
            assert "worker killed" not in manager.log
            assert [w["generation"] for w in manager.workers()] == [2, 3]


def brittle(directory: Path, *rollout: str) -> str:
    (directory / "brittle.py").write_text(BRITTLE)
    return "\n".join([
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\nworkers = 2',
        f"command = ['{sys.executable}', '{directory / 'brittle.py'}']",
        "[service.web.rollout]",
        *rollout,
    ])  # fmt: skip


def test_workers_that_die_in_their_drain_are_a_warning_and_a_finding(tmp_path: Path) -> None:
    with Manager(tmp_path, brittle(tmp_path)) as manager:
        assert manager.reload().code == 0
        line = wait_in_log(manager, "worker ended worker=web@1.1", "signal 11")
        assert line.startswith("W ")
        wait_for(lambda: manager.status()["services"]["web"]["died"] == 2, "both to be counted")
        found = manager.run("doctor", "-c", str(manager.config)).answer
        assert "workers-died" in [each["check"] for each in found]


def test_the_receipt_counts_workers_that_died_in_their_drain_before_it(tmp_path: Path) -> None:
    with Manager(tmp_path, brittle(tmp_path, "surge = 1", "probation = 1")) as manager:
        done = manager.reload()
        assert done.code == 0
        (verdict,) = done.answer
        assert verdict["receipt"]["died"] >= 1
        assert verdict["receipt"]["drained"] == 0


def test_nobody_keeps_serving_whose_workers_are_all_gone(tmp_path: Path) -> None:
    release = Release(tmp_path)
    with Manager(tmp_path, release.config()) as manager:
        release.spoil("exits")
        (worker,) = manager.workers()
        os.kill(worker["pid"], signal.SIGKILL)
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "down", "it to be down")
        done = manager.say("reload")
        assert done.code == 1
        assert "generation 1 stays, and none of its workers is ready\n" in done.stdout
        assert "serving" not in done.stdout
        (verdict,) = manager.reload().answer
        assert (verdict["kept"], verdict["kept_ready"]) == (1, 0)
