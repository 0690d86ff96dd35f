"""Workers that end by themselves when their work is done: no fault, and nobody waits for it."""

from __future__ import annotations

import re
import socket
import sys
import time
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.torture.load.result import Outcome
from tests.e2e.apps import App
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.programs.release import answered
from tests.helpers.load import Load

DROPPED = {Outcome.EMPTY, Outcome.RESET0}  # by uvicorn, which closes what it has not read yet


def uvicorn(app: App, requests: int, *rollout: str) -> str:
    """Return a config of two workers that end after so many requests each."""
    command = [str(BIN / "uvicorn"), "--fd", "{http}", "--no-access-log", "app:app"]
    command += ["--limit-max-requests", str(requests)]
    return "\n".join([
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]',
        f"command = {command}\ncwd = '{app.directory}'\nworkers = 2",
        "[service.web.rollout]",
        *rollout,
    ])  # fmt: skip


def counts(manager: Manager) -> dict[str, int]:
    found: dict[str, int] = manager.status()["services"]["web"]["counts"]
    return found


def starts(manager: Manager) -> int:
    return len(manager.events(EventKind.WORKER_STARTED))


def test_a_server_that_ends_by_its_number_of_requests_stays_up_under_load(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, uvicorn(app, 100)) as manager:
        # A worker lives for some seconds, even if a busy machine lets clients wait for one.
        with Load(manager.target(), ["short:rate=60"]) as load:
            wait_for(lambda: len(load.result.rows) >= 720, "720 requests")
            result = load.stop()
        lost = [row for row in result.failed if row.outcome not in DROPPED]
        assert not lost, result.failures()
        assert max(row.latency for row in result.rows) < 5
        found = counts(manager)
        assert found["recycled"] >= 5
        assert found["crashed"] == found["unready"] == 0
        assert not re.findall(r"^E .*worker ended.*", manager.log, re.MULTILINE)


def test_a_reload_whose_workers_recycle_in_probation_commits(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    config = uvicorn(app, 60, "probation = 4")
    with Manager(tmp_path, config) as manager, Load(manager.target(), ["short:rate=60"]) as load:
        answered(load)
        done = manager.reload()
        assert done.code == 0, done.stdout
        ended = re.findall(r"worker ended worker=web@2\..* how=recycled", manager.log)
        assert ended, "no worker of the new generation was recycled in its probation"


LEAVER = """
import select, socket, sys, time
from sockmgr import worker
(http,) = worker.listeners("http")
worker.ready()
time.sleep(1.2)
worker.stopping()
time.sleep(1)
"""


def test_a_worker_that_says_it_stops_has_its_successor_before_it_ends(tmp_path: Path) -> None:
    (tmp_path / "leaver.py").write_text(LEAVER)
    config = (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\nready = "notify"\n'
        f"command = ['{sys.executable}', '{tmp_path / 'leaver.py'}']\n"
    )
    with Manager(tmp_path, config) as manager:
        wait_for(lambda: counts(manager)["recycled"] >= 2, "two that left")
        log = manager.log
        assert log.index("worker stops by itself worker=web@1.1") < log.index("web@1.2 pid")
        assert log.index("worker ready worker=web@1.2") < log.index("worker ended worker=web@1.1")
        assert not re.findall("^[EW] .*", log, re.MULTILINE)


# --- Real crash loops ----------------------------------------------------------------------------


def shell(script: str) -> str:
    """Return a config whose one worker is this script."""
    return (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\n'
        f"command = ['sh', '-c', '''{script}''']\n"
    )


def test_clients_who_wait_for_a_service_that_is_down_are_not_made_to_wait_ever_longer(
    tmp_path: Path,
) -> None:
    manager = Manager(tmp_path, shell("exit 1"))
    try:
        manager.start()
        wait_for(lambda: starts(manager) >= 1, "the first start")
        host, port = manager.status()["listeners"]["http"]["address"][6:].split(":")
        with socket.create_connection((host, int(port))):
            wait_for(lambda: starts(manager) >= 5, "back-off to grow")
            now, began = starts(manager), time.monotonic()
            wait_for(lambda: starts(manager) >= now + 3, "three more starts", timeout=6)
            assert time.monotonic() - began > 1, "a crash loop is slow all the same"
    finally:
        manager.close()


def test_a_program_that_exits_with_0_at_once_is_tried_ever_later_and_is_seen(
    tmp_path: Path,
) -> None:
    manager = Manager(tmp_path, shell("exit 0"))
    try:
        manager.start()
        wait_for(lambda: starts(manager) >= 5, "back-off to grow")
        began = time.monotonic()
        wait_for(lambda: starts(manager) >= 6, "one more start")
        assert time.monotonic() - began > 2
        assert manager.status()["services"]["web"]["state"] == "down"
        assert counts(manager).get("recycled", 0) == 0
        assert len(re.findall(r"^E .*exited with status 0", manager.log, re.MULTILINE)) >= 5
    finally:
        manager.close()


# --- Ready, and never idle -----------------------------------------------------------------------


BUSY = """
import time
from sockmgr import worker
(http,) = worker.listeners("http")
http.setblocking(False)
time.sleep(1)
served = []
while True:
    try:
        served.append(http.accept()[0])
    except BlockingIOError:
        pass
"""


def test_a_worker_that_always_has_something_to_do_is_ready_by_what_it_accepted(
    tmp_path: Path,
) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    config = (
        '[listen]\nhttp = "tcp://127.0.0.1:0"\n[service.web]\nready_timeout = 60\n'
        f"command = ['{sys.executable}', '{tmp_path / 'busy.py'}']\n"
    )
    manager = Manager(tmp_path, config)
    try:
        manager.start()
        wait_for(lambda: starts(manager), "its start")
        host, port = manager.status()["listeners"]["http"]["address"][6:].split(":")
        with socket.create_connection((host, int(port))):
            manager.wait_serving()
    finally:
        manager.close()
