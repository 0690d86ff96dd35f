"""`app =` with accept = "dispatch" under a real manager: kept connections are counted, too."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.applications import BLOCKED, config, line_with
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.passing import connections
from tests.e2e.programs.release import answered, wait_in_log
from tests.e2e.servers import has_answered
from tests.helpers.load import Load

DISPATCH = 'accept = "dispatch"'
MODES = ("kat:conns=16,think=0.01", "short:rate=80", "slow:conns=2,s=0.3")
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def connected(manager: Manager, listener: str = "http") -> socket.socket:
    """Return a client that has sent a request."""
    target = manager.target(listener)
    client = socket.socket(target.family)
    client.settimeout(30)
    client.connect(target.address)
    client.sendall(REQUEST)
    return client


@pytest.mark.parametrize(
    ("example", "more", "unix"),
    [
        ("asgi", 'policy = "round-robin"', False),
        ("wsgi", 'policy = "least-connections"', True),
        ("asgi", "preload = true", False),
    ],
)
def test_reloads_lose_no_request_on_new_or_kept_connections(
    example: str, more: str, unix: bool, tmp_path: Path
) -> None:
    app = App(example, tmp_path)
    more = f"{DISPATCH}\nmax_connections = 50\n{more}"
    address = f"unix://{tmp_path}/http.sock" if unix else "tcp://127.0.0.1:0"
    with Manager(tmp_path, config(app, more=more, address=address)) as manager:
        with Load(manager.target(), MODES) as load:
            for version in "23":
                app.deploy(version)
                assert manager.reload().code == 0
                wait_for(partial(has_answered, load, version), f"version {version} to answer")
        assert not load.result.failed, load.result.failures()
        wait_for(lambda: set(connections(manager).values()) == {0}, "all to be closed")


def test_each_of_four_workers_has_a_quarter_of_those_who_stay(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    text = config(app, more=DISPATCH).replace("workers = 2", "workers = 4")
    with Manager(tmp_path, text) as manager, ExitStack() as clients:
        held = [clients.enter_context(connected(manager)) for _ in range(64)]
        assert all(client.recv(12) == b"HTTP/1.1 200" for client in held)
        assert list(connections(manager).values()) == [16] * 4
        for client in held[::4]:
            client.close()
        wait_for(lambda: sum(connections(manager).values()) == 48, "the end of those to be known")


def test_all_listeners_are_served(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    text = config(app, more=DISPATCH)
    text = text.replace("[listen]", f'[listen]\nadmin = "unix://{tmp_path}/admin.sock"')
    with Manager(tmp_path, text) as manager, ExitStack() as clients:
        for listener in ("http", "admin", "http", "admin"):
            client = clients.enter_context(connected(manager, listener))
            assert client.recv(12) == b"HTTP/1.1 200"
        assert list(connections(manager).values()) == [2, 2]


def test_clients_wait_while_all_are_full_of_kept_connections(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    text = config(app, more=f"{DISPATCH}\nmax_connections = 2")
    with Manager(tmp_path, text) as manager, ExitStack() as clients:
        kept = [clients.enter_context(connected(manager)) for _ in range(4)]
        assert all(client.recv(12) == b"HTTP/1.1 200" for client in kept)
        fifth = clients.enter_context(connected(manager))
        assert list(connections(manager).values()) == [2, 2]
        fifth.setblocking(False)
        with pytest.raises(BlockingIOError):
            fifth.recv(1)
        fifth.settimeout(30)
        kept[0].close()
        assert fifth.recv(12) == b"HTTP/1.1 200"


def test_clients_that_send_nothing_or_half_a_head_do_not_keep_the_places_of_others(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    text = config(app, more=f"{DISPATCH}\nmax_connections = 2")
    text = text.replace("access_log", 'header_timeout = "1s"\naccess_log')
    with Manager(tmp_path, text) as manager, ExitStack() as clients:
        target = manager.target()
        for number in range(4):  # all places of both workers, for they come first
            silent = clients.enter_context(socket.create_connection(target.address))
            silent.sendall(REQUEST[: number * 5])
        asking = clients.enter_context(connected(manager))
        assert asking.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("accept", ["shared", "per-worker", "dispatch"])
def test_a_proxy_names_its_clients_whoever_accepts_and_through_a_reload(
    accept: str, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    text = config(app, more=f'accept = "{accept}"')
    text = text.replace("access_log = false", "proxy_protocol = true")
    with Manager(tmp_path, text) as manager:

        def asks(client: str) -> None:
            target = manager.target()
            header = f"PROXY TCP4 {client} 198.51.100.1 4711 80\r\n".encode()
            with socket.create_connection(target.address) as proxy:
                proxy.sendall(header + REQUEST)
                assert proxy.recv(12) == b"HTTP/1.1 200"
            wait_in_log(manager, f'{client}:4711 - "GET / HTTP/1.1" 200')

        asks("192.0.2.1")
        assert manager.reload().code == 0
        asks("192.0.2.2")


def test_what_waits_for_a_worker_that_hangs_goes_to_others_before_it_ends(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    (app.directory / "blocked.py").write_text(BLOCKED)
    more = f'{DISPATCH}\nhang_timeout = "1s"\ndrain_timeout = "1s"'
    with Manager(tmp_path, config(app, target="blocked:app", more=more)) as manager:
        with connected(manager) as blocked, Load(manager.target(), ["short:rate=60"]) as load:
            assert blocked.recv(12) == b"HTTP/1.1 200"
            blocked.sendall(REQUEST.replace(b"/", b"/block", 1))
            wait_for(partial(line_with, manager, "was=killed"), "it to be killed")
        assert not load.result.failed, load.result.failures()


@pytest.mark.parametrize(
    ("accept", "more"),
    [("shared", ""), ("per-worker", ""), ("dispatch", ""), ("dispatch", 'ready = { http = "/" }')],
)
def test_a_worker_that_others_tell_to_stop_gets_nothing_more_and_loses_nothing(
    accept: str, more: str, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    # So long that a client who stays keeps it from ending.
    text = config(app, more=f'accept = "{accept}"\n{more}').replace(
        "access_log", "keep_alive = 60\nmigrate = false\naccess_log"
    )
    with Manager(tmp_path, text) as manager, connected(manager) as stays:
        told = who_answers(stays)
        with Load(manager.target(), MODES[:2]) as load:
            answered(load, count=20)
            os.kill(told, signal.SIGTERM)
            wait_in_log(manager, "worker stops by itself", f"pid={told}")
            rows = answered(load, count=100)
            assert told not in {row.pid for row in rows if row.fresh}
            wait_for(lambda: len(ready(manager) - {told}) == 2, "its successor")
            answered(load, count=100)
            # Nobody has waited for it to end.
            assert told in {worker["pid"] for worker in manager.workers()}
        assert not load.result.failed, load.result.failures()
        assert "takes no connections" not in manager.log
        stays.close()
        wait_for(lambda: len(manager.workers()) == 2, "its end")


def ready(manager: Manager) -> set[int]:
    return {worker["pid"] for worker in manager.workers() if worker["state"] == "ready"}


def who_answers(client: socket.socket) -> int:
    """Return the pid in the answer to the request that was sent."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += client.recv(4096)
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["pid"])


def test_when_manager_and_keeper_were_killed_the_next_manager_serves_with_other_workers(
    tmp_path: Path,
) -> None:
    """The dispatcher holds the listener until then; nobody can tell whose the workers were."""
    app = App("asgi", tmp_path)
    more = f"{DISPATCH}\npreload = true"
    with Manager(tmp_path, config(app, more=more)) as manager:
        before = ready(manager)
        manager.kill9(keeper=True)
        manager.start()
        manager.wait_serving()
        wait_for(lambda: len(ready(manager) - before) == 2, "other workers")
        with Load(manager.target(), MODES) as load:
            assert manager.reload().code == 0
            answered(load, count=100)
        assert not load.result.failed, load.result.failures()
        assert "Traceback" not in manager.log


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_who_waits_at_a_listener_that_a_reload_removes_is_served_by_the_old_workers(
    scheme: str, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    text = config(app, more=f"{DISPATCH}\nmax_connections = 1")
    removed = f"unix://{tmp_path}/old.sock" if scheme == "unix" else "tcp://127.0.0.2:0"
    more = text.replace("[listen]", f'[listen]\nold = "{removed}"')
    with Manager(tmp_path, more) as manager, ExitStack() as clients:
        full = [clients.enter_context(connected(manager)) for _ in range(2)]
        old = {who_answers(client) for client in full}
        waits = [clients.enter_context(connected(manager, "old")) for _ in range(3)]
        manager.config.write_text(text)
        assert manager.reload().code == 0
        with connected(manager) as other:
            assert who_answers(other) not in old
        for client in (*full, *waits):
            if client in waits:
                assert who_answers(client) in old
            client.close()
        wait_for(lambda: list(manager.status()["listeners"]) == ["http"], "it to be closed")
