"""`app =` under a real manager: reloads that lose nothing, not even on kept-alive connections."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from sockmgr.api.records import EventKind
from tests.e2e.applications import BLOCKED, config, line_with
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.servers import has_answered, stale
from tests.helpers.asking import ask
from tests.helpers.load import Load

RELOADS = 5
MODES = ("kat:conns=16,think=0.01", "short:rate=100", "slow:conns=2")


@pytest.mark.parametrize(("example", "unix"), [("asgi", False), ("wsgi", True)])
def test_reloads_lose_no_request_on_connections_that_are_kept(
    example: str, unix: bool, tmp_path: Path
) -> None:
    """Nor any other: on a unix socket two generations accept, and each serves what it took."""
    app = App(example, tmp_path)
    address = f"unix://{tmp_path}/http.sock" if unix else "tcp://127.0.0.1:0"
    with Manager(tmp_path, config(app, address=address)) as manager:
        with Load(manager.target(), MODES) as load:
            reloads = []
            for number in range(2, RELOADS + 2):
                app.deploy(str(number))
                reloads.append(manager.reload())
                assert reloads[-1].code == 0, reloads[-1].stderr
                answered = partial(has_answered, load, str(number))
                wait_for(answered, f"version {number} to answer")
            result = load.stop()
        assert not result.failed, result.failures()
        if not unix:  # where the old one accepts, too, until it has left
            assert not stale(result, reloads)
        wait_for(lambda: len(manager.workers()) == 2, "the old workers to be gone")
        assert f'"{RELOADS + 1}"'.encode() in ask(manager.target())
        ends = manager.events(EventKind.WORKER_ENDED)
        assert ends
        assert manager.events(EventKind.WORKER_ENDED, was="draining", why="clean") == ends


def test_broken_code_aborts_at_once_and_shows_where_it_broke(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, config(app)) as manager, Load(manager.target(), MODES[:1]) as load:
        app.deploy_broken()
        done = manager.say("reload")
        assert done.code == 1
        assert "exited with status 3 before it was ready" in done.stdout
        assert "version.py" in done.stdout
        assert "a_module_that_nobody_installed" in done.stdout
        assert not load.stop().failed


def test_a_worker_is_ready_only_when_the_start_up_of_the_application_is_done(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    gate = tmp_path / "gate"
    (app.directory / "slow.py").write_text(f"""
import asyncio, pathlib
from app import app as fast
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        print("waits at the gate", flush=True)
        while not pathlib.Path("{gate}").exists():
            await asyncio.sleep(0.01)
    await fast(scope, receive, send)
""")
    manager = Manager(tmp_path, config(app, target="slow:app"))
    try:
        manager.start()
        wait_for(lambda: manager.log.count("waits at the gate") == 2, "both to start up")
        assert {worker["state"] for worker in manager.workers()} == {"starting"}
        gate.touch()
        manager.wait_serving()
    finally:
        manager.close()


def pid_of(line: str) -> int:
    return int(line.partition("pid=")[2].split()[0])


@pytest.mark.parametrize(
    ("succession", "preload"), [(False, "false"), (True, "false"), (True, "true")]
)
def test_a_worker_that_hangs_shows_its_stack_and_is_replaced(
    succession: bool, preload: str, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    (app.directory / "blocked.py").write_text(BLOCKED)
    more = f'hang_timeout = "1s"\ndrain_timeout = "1s"\npreload = {preload}'
    with Manager(tmp_path, config(app, target="blocked:app", more=more)) as manager:
        if succession:  # the next manager finds the heartbeat, too
            manager.kill9()
            manager.start()
            manager.wait_serving()
        with socket.create_connection(manager.target().address) as client:
            client.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            hangs = wait_for(partial(line_with, manager, "worker hangs"), "the hang to be seen")
            wait_for(lambda: "in app" in manager.log, "the stack")
            wait_for(lambda: not Path(f"/proc/{pid_of(hangs)}").exists(), "it to be killed")
        assert "blocked.py" in manager.log
        manager.wait_serving()
        with Load(manager.target(), ["kat:conns=2"]) as load:
            wait_for(lambda: len(load.result.rows) > 20, "answers")
            assert not load.stop().failed
