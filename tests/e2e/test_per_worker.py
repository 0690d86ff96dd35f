"""accept = "per-worker" with real servers under load: each worker has a queue of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import pytest

from sockmgr.torture.load.result import Outcome
from tests.e2e.apps import ROOT, App
from tests.e2e.commands import UVICORN, config
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.servers import GTHREAD
from tests.helpers.load import Load, Target

LOAD = ("short:rate=120", "slow:conns=2,s=0.3")
PER_WORKER = 'accept = "per-worker"'
UDP_ECHO = (str(BIN / "python"), "-S", str(ROOT / "tests/e2e/programs/udp_echo.py"))
ALL, ONE = "probation = 0.2", "probation = 0.2\nsurge = 1"


def leases(manager: Manager) -> dict[int, int]:
    """The lease of each worker that is ready, by pid."""
    return {w["pid"]: w["lease"] for w in manager.workers() if w["state"] == "ready"}


def rest(manager: Manager, workers: int, without: int = 0) -> dict[int, int]:
    """Wait until there are these workers, not that pid, and no others.

    Return their leases, no two alike.
    """

    def look() -> dict[int, int] | None:
        found = manager.workers()
        all_ready = all(worker["state"] == "ready" for worker in found)
        pids = {worker["pid"]: worker["lease"] for worker in found}
        return pids if all_ready and len(pids) == workers and without not in pids else None

    found = wait_for(look, f"{workers} workers and no more")
    assert len(set(found.values())) == workers
    return found


@pytest.mark.parametrize(
    ("example", "command"),
    [("asgi", UVICORN), ("wsgi", GTHREAD.command)],
    ids=["uvicorn", "gunicorn gthread"],
)
@pytest.mark.parametrize(("rollout", "reloads"), [(ALL, 5), (ONE, 2)], ids=["surge all", "surge 1"])
def test_reloads_under_load_lose_no_new_connection(
    example: str, command: tuple[str, ...], rollout: str, reloads: int, tmp_path: Path
) -> None:
    app = App(example, tmp_path)
    text = config(app, command, workers=3, more=PER_WORKER, rollout=rollout)
    with Manager(tmp_path, text) as manager:
        with Load(manager.target(), LOAD) as load:
            for number in range(2, reloads + 2):
                app.deploy(str(number))
                done = manager.reload()
                assert done.code == 0, done.stdout + done.stderr
            result = load.stop()
        assert not result.lost, result.failures()
        rest(manager, 3)
        if rollout == ALL:
            assert result.mixed() < 0.05


def test_scaling_up_and_down_under_load_loses_nothing(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN, workers=2, more=PER_WORKER)) as manager:
        with Load(manager.target(), LOAD) as load:
            for workers in (5, 2):
                done = manager.run("scale", "web", str(workers))
                assert done.code == 0, done.stderr
                assert sorted(rest(manager, workers).values()) == list(range(workers))
            result = load.stop()
        assert not result.failed, result.failures()


def test_what_waits_for_a_worker_that_is_killed_is_answered_by_its_successor(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN, workers=3, more=PER_WORKER)) as manager:
        pid, lease = next(iter(leases(manager).items()))
        with Load(manager.target(), ["short:rate=100,timeout=30"]) as load:
            wait_for(lambda: any(row.pid == pid for row in answered(load)), "its answers")
            os.kill(pid, signal.SIGSTOP)  # it accepts no more, but is steered to
            stopped_at = time.monotonic()
            wait_for(lambda: manager.status()["listeners"]["http"]["queue"] > 10, "a queue")
            os.kill(pid, signal.SIGKILL)
            assert lease in rest(manager, 3, without=pid).values()
            result = load.stop()
        in_flight = [row for row in result.failed if row.began <= stopped_at]
        assert result.failed == in_flight, result.failures()
        assert len(in_flight) <= 2


def answered(load: Load) -> list[Any]:
    return [row for row in load.result.rows[-300:] if row.outcome is Outcome.OK]


def test_the_next_manager_finds_each_worker_on_its_queue_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN, workers=3, more=PER_WORKER)) as manager:
        before = rest(manager, 3)
        with Load(manager.target(), LOAD) as load:
            for _ in range(2):
                manager.kill9()
                manager.start()
                manager.wait_serving()
                assert leases(manager) == before
            assert manager.reload().code == 0
            result = load.stop()
        assert not result.failed, result.failures()
        assert not before.keys() & rest(manager, 3).keys()


def test_connections_that_last_are_spread_over_all_workers(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app, UVICORN, workers=4, more=PER_WORKER)) as manager:
        target, counts = manager.target(), Counter[int]()
        with contextlib.ExitStack() as held:
            for _ in range(64):
                sock = held.enter_context(socket.create_connection(target.address))
                counts[who_answers(sock)] += 1
        assert counts.keys() == leases(manager).keys()
        in_turn = "round robin" in manager.status()["listeners"]["http"]["choice"]
        # Chosen at random, one would get more than that once in a hundred thousand runs.
        assert max(counts.values()) <= (16 if in_turn else 34), counts


def who_answers(sock: socket.socket) -> int:
    """Ask on a connection that stays; return the pid."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += sock.recv(4096)
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["pid"])


# --- UDP -----------------------------------------------------------------------------------------


class Caller:
    """Sends a datagram after the other, each from a port of its own, and counts who answers."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.answers = Counter[int]()
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._over.is_set():
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.settimeout(10)
                sock.sendto(b"x", self._address)
                try:
                    self.answers[int(sock.recv(2048).split()[0])] += 1
                except TimeoutError:
                    self.lost += 1


@pytest.mark.parametrize("rollout", [ALL, ONE], ids=["surge all", "surge 1"])
def test_a_udp_service_is_reloaded_and_scaled_and_no_datagram_is_lost(
    rollout: str, tmp_path: Path
) -> None:
    app = App("plain", tmp_path)
    text = config(app, UDP_ECHO, workers=3, more=PER_WORKER, rollout=rollout)
    with Manager(tmp_path, text.replace("tcp://", "udp://")) as manager:
        _, _, where = manager.status()["listeners"]["http"]["address"].partition("://")
        with Caller(Target.at_url(f"http://{where}").address) as caller:  # type: ignore[arg-type]
            seen = set[int]()
            for _ in range(3):
                now = rest(manager, 3).keys()
                wait_for(lambda now=now: now <= caller.answers.keys(), "an answer of each worker")
                seen |= now
                assert manager.reload().code == 0
            assert manager.run("scale", "web", "1").code == 0
            rest(manager, 1)
        assert caller.lost == 0
        assert len(seen) == 9
