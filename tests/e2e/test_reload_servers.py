"""Reloads in a row of real servers under load: nothing is lost on a new connection."""

from __future__ import annotations

import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from sockmgr.torture.load.websocket import SWITCHING_PROTOCOLS, Session, pieces
from tests.e2e.apps import ROOT, App
from tests.e2e.harness import Done, Manager, wait_for
from tests.e2e.servers import (
    MODES,
    SERVERS,
    Server,
    has_answered,
    skip_unless_installed,
    stale,
)
from tests.helpers.load import Load, Result, Target

# Some seconds; a machine that is busy with other things may take many times that.
pytestmark = pytest.mark.timeout(300)

RELOADS = int(os.environ.get("SOCKMGR_TEST_RELOADS", "3"))


def config(server: Server, app: App, address: str) -> str:
    command = ", ".join(f'"{word}"' for word in server.command)
    return f"""
[listen]
http = "{address}"

[service.web]
command = [{command}]
workers = {server.workers}
cwd = "{app.directory}"

[service.web.rollout]
probation = 0.2
# Each generation may take 3 s to finish slow answers, and reloads come faster than that.
max_draining = 20
"""


def reload_again_and_again(manager: Manager, app: App, load: Load) -> list[Done]:
    """Deploy and reload RELOADS times; each verdict is `committed` and each version answers."""
    done = []
    for number in range(2, RELOADS + 2):
        app.deploy(str(number))
        done.append(manager.reload())
        assert done[-1].code == 0, done[-1].stderr
        wait_for(partial(has_answered, load, str(number)), f"version {number} to answer", timeout=5)
    return done


def tell(name: str, result: Result) -> None:
    """Print what a reader of `pytest -rP` wants to know."""
    print(
        f"{name}: {len(result.rows)} requests over {RELOADS} reloads, {len(result.lost)} lost, "
        f"{len(result.races)} kept connections closed as they were used again; "
        f"mixed for {result.mixed() * 1000:.0f} ms; {result.failures()}"
    )


@pytest.mark.parametrize("name", SERVERS)
def test_reloads_under_load_lose_no_new_connection(name: str, tmp_path: Path) -> None:
    server = SERVERS[name]
    skip_unless_installed(server.needs)
    app = App(server.example, tmp_path)
    with Manager(tmp_path, config(server, app, "tcp://127.0.0.1:0")) as manager:
        with Load(manager.target(), MODES) as load:
            reloads = reload_again_and_again(manager, app, load)
            result = load.stop()
        tell(name, result)
        assert not result.lost, result.failures()
        assert not stale(result, reloads)
        # One judge connects in one order; 50 ms are for a kernel that handles SYNs out of order.
        assert result.mixed() < 0.05


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn gthread"])
def test_reloads_on_a_unix_socket_lose_nobody_who_was_accepted(name: str, tmp_path: Path) -> None:
    """Two generations accept from one unix socket: an overlap. Gunicorn answers what it accepted;
    uvicorn does, as our launcher runs it."""
    app = App(SERVERS[name].example, tmp_path)
    path = tmp_path / "http.sock"
    with Manager(tmp_path, config(SERVERS[name], app, f"unix://{path}")) as manager:
        with Load(Target.at_path(str(path)), MODES) as load:
            reload_again_and_again(manager, app, load)
            result = load.stop()
        tell(name, result)
        assert not result.lost, result.failures()


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn"])
def test_a_request_that_comes_in_pieces_is_answered_by_whoever_has_its_beginning(
    name: str, tmp_path: Path
) -> None:
    """Both servers, told to stop, close a connection on which no whole request has come."""
    app = App(SERVERS[name].example, tmp_path)
    with Manager(tmp_path, config(SERVERS[name], app, "tcp://127.0.0.1:0")) as manager:
        address = manager.target().address
        clients = [socket.create_connection(address) for _ in range(10)]
        with ExitStack() as closing, ThreadPoolExecutor(1) as thread:
            for client in clients:
                closing.enter_context(client).settimeout(10)
                client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n")
            app.deploy("2")
            reload = thread.submit(manager.reload)
            pieces = 0
            while pieces < 4:  # since the verdict, at which the old workers are about to be told
                for client in clients:
                    client.sendall(b"X-More: yes\r\n")
                pieces += bool(wait([reload], timeout=0.1).done)
                time.sleep(0.1)
            assert reload.result().code == 0
            for client in clients:
                client.sendall(b"\r\n")
            answers = [client.makefile("rb").read() for client in clients]
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 10


@pytest.mark.parametrize("name", ["uvicorn", "granian"])
def test_websockets_of_old_workers_end_by_a_frame_that_asks_to_come_back(
    name: str, tmp_path: Path
) -> None:
    """granian would drop them; our launcher closes them first."""
    app = App("asgi", tmp_path)
    shutil.copyfile(ROOT / "sockmgr/torture/app.py", app.directory / "app.py")
    text = config(SERVERS[name], app, "tcp://127.0.0.1:0")
    with Manager(tmp_path, text) as manager, ExitStack() as closing:
        address, sessions = manager.target().address, {}
        for _ in range(10):
            client = closing.enter_context(socket.create_connection(address))
            client.sendall(pieces("/ws", 0)[0])
            sessions[client] = Session(1)
            while not sessions[client].status:
                sessions[client].feed(client.recv(65536))
        app.deploy("2")
        assert manager.reload().code == 0
        for client, session in sessions.items():
            while not session.complete:  # raises an error at any other code than 1001 and 1012
                data = client.recv(65536)
                assert data, "dropped"
                session.feed(data)
    assert {each.status for each in sessions.values()} == {SWITCHING_PROTOCOLS}
