"""Connections that outlive their worker: no client sees a reload of `app =`, nor that one ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for

KEPT = 12
APP = """
import os
async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = f"{os.getpid()} {scope['client']}".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def config(
    directory: Path,
    *,
    workers: int = 2,
    drain_timeout: str = "20s",
    service: str = "",
    http: str = "",
    rollout: str = "",
    address: str = "tcp://127.0.0.1:0",
) -> str:
    (directory / "asked.py").write_text(APP)
    return f"""
[listen]
http = "{address}"

[service.web]
app = "asked:app"
cwd = "{directory}"
drain_timeout = "{drain_timeout}"
workers = {workers}
{service}

[service.web.http]
access_log = false
{http}

[service.web.rollout]
{rollout}
"""


class Client:
    """One connection that is kept. To ask where it was closed, or will be, is an error."""

    def __init__(self, manager: Manager) -> None:
        target = manager.target()
        self._connection = http.client.HTTPConnection("127.0.0.1")
        self._connection.sock = sock = socket.socket(target.family)
        sock.settimeout(30)
        sock.connect(target.address)
        self._connection.auto_open = 0
        self._name = sock.getsockname()

    def ask(self) -> int:
        """Return who answers."""
        pid, is_last = self._ask()
        assert not is_last
        return pid

    def ask_to_the_last(self) -> int:
        """Ask until an answer says that it is the last one, and return who answers that."""
        while True:
            pid, is_last = self._ask()
            if is_last:
                return pid

    def _ask(self) -> tuple[int, bool]:
        self._connection.request("GET", "/")
        answer = self._connection.getresponse()
        pid, _, client = answer.read().decode().partition(" ")
        assert client == (str(self._name) if self._name else "None")
        return int(pid), answer.headers.get("connection") == "close"

    def is_closed(self) -> bool:
        """Wait for the end of the connection."""
        sock: socket.socket = self._connection.sock
        return sock.recv(1) == b""

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def clients(manager: Manager, number: int = KEPT) -> Iterator[list[Client]]:
    """Connect, and ask once on each."""
    with contextlib.ExitStack() as closing:
        found = [Client(manager) for _ in range(number)]
        for each in found:
            closing.callback(each.close)
            each.ask()
        yield found


def pids(manager: Manager) -> set[int]:
    return {worker["pid"] for worker in manager.workers()}


def until_only(manager: Manager, number: int) -> set[int]:
    """Wait until there are so many workers, none of which drains; return their pids."""
    wait_for(lambda: len(manager.workers()) == number, "the old workers to be gone")
    return pids(manager)


WAYS = [
    ('accept = "shared"', "tcp://127.0.0.1:0"),
    ('accept = "per-worker"', "tcp://127.0.0.1:0"),
    ("preload = true", "tcp://127.0.0.1:0"),
    ('accept = "dispatch"\npolicy = "least-connections"', "tcp://127.0.0.1:0"),
    ('accept = "dispatch"', "unix://{directory}/http.sock"),
    ("hang_timeout = 0", "unix://{directory}/http.sock"),
]


@pytest.mark.parametrize(("service", "address"), WAYS)
def test_a_reload_closes_no_connection_and_waits_for_none(
    service: str, address: str, tmp_path: Path
) -> None:
    text = config(tmp_path, service=service, http='keep_alive = "1h"',
                  address=address.format(directory=tmp_path))  # fmt: skip
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        for _ in range(2):
            before = pids(manager)
            assert manager.reload().code == 0
            after = until_only(manager, 2)
            assert not after & before
            assert {each.ask() for each in kept} <= after
        assert manager.status()["services"]["web"]["moved"] >= 2 * KEPT


def test_fewer_workers_and_a_restarted_one_close_no_connection(tmp_path: Path) -> None:
    text = config(tmp_path, workers=3, http='keep_alive = "1h"')
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        assert manager.run("scale", "web", "1").code == 0
        (left,) = until_only(manager, 1)
        assert {each.ask() for each in kept} == {left}
        (worker,) = manager.workers()
        assert (
            manager.run("restart-worker", f"web@{worker['generation']}.{worker['slot']}").code == 0
        )
        (next_one,) = until_only(manager, 1)
        assert {each.ask() for each in kept} == {next_one} != {left}


def test_an_abort_gives_back_what_the_new_ones_have(tmp_path: Path) -> None:
    """Of two that start one after the other, the second fails when it has all connections."""
    text = config(tmp_path, http='keep_alive = "1h"', rollout="surge = 1\nmax_failed_starts = 1")
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        before = pids(manager)
        (tmp_path / "asked.py").write_text(f"""
import pathlib
started = pathlib.Path("{tmp_path}/started")
if started.exists():
    raise RuntimeError("only one")
started.touch()
{APP}""")
        assert manager.reload().code == 1
        after = until_only(manager, 2)
        assert {each.ask() for each in kept} <= after
        assert len(before & after) == 1


def test_a_worker_that_is_stopped_by_somebody_else_gives_what_it_has(tmp_path: Path) -> None:
    text = config(tmp_path, http='keep_alive = "1h"')
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        before = pids(manager)
        told = kept[0].ask()
        os.kill(told, signal.SIGTERM)
        wait_for(lambda: len(pids(manager) - before) == 1 and told not in pids(manager), "another")
        assert told not in {each.ask() for each in kept}


def test_at_a_stop_all_drain_as_ever(tmp_path: Path) -> None:
    text = config(tmp_path, http='keep_alive = "1h"', drain_timeout="6s")
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        serving = pids(manager)
        os.kill(manager.pid, signal.SIGTERM)
        assert kept[0].ask_to_the_last() in serving
        assert all(each.is_closed() for each in kept[1:])
        assert manager.wait() == 0


@pytest.mark.parametrize("change", ["migrate = false", "proxy_protocol = true"])
def test_what_the_next_ones_would_not_take_is_closed_as_ever(change: str, tmp_path: Path) -> None:
    http = 'keep_alive = "1h"'
    text = config(tmp_path, http=http, drain_timeout="8s")
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        before = pids(manager)
        text = config(tmp_path, http=f"{http}\n{change}", drain_timeout="8s")
        manager.config.write_text(text)
        assert manager.reload().code == 0
        assert kept[0].ask_to_the_last() in before
        assert all(each.is_closed() for each in kept[1:])
        assert not until_only(manager, 2) & before


def test_the_queue_outlives_a_manager_that_is_killed(tmp_path: Path) -> None:
    text = config(tmp_path, http='keep_alive = "1h"')
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        before = pids(manager)
        manager.kill9()
        manager.start()
        manager.wait_serving()
        assert pids(manager) == before
        assert manager.reload().code == 0
        after = until_only(manager, 2)
        assert {each.ask() for each in kept} <= after


def test_the_queue_outlives_manager_and_keeper(tmp_path: Path) -> None:
    text = config(tmp_path, http='keep_alive = "1h"')
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        before = pids(manager)
        manager.kill9(keeper=True)
        manager.start()
        manager.wait_serving()
        wait_for(lambda: not pids(manager) & before, "other workers")
        after = until_only(manager, 2)
        assert {each.ask() for each in kept} <= after


def test_the_dispatcher_takes_what_waits_though_there_is_no_manager(tmp_path: Path) -> None:
    text = config(tmp_path, service='accept = "dispatch"', http='keep_alive = "1h"')
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        told = kept[0].ask()
        manager.kill9()
        os.kill(told, signal.SIGTERM)
        wait_for(lambda: told not in {each.ask() for each in kept}, "another worker to have them")
        manager.start()
        manager.wait_serving()


def test_what_is_told_of_a_connection_goes_with_it_through_the_dispatcher(tmp_path: Path) -> None:
    """A worker that knew nothing would wait for another PROXY header."""
    http = 'keep_alive = "1h"\nproxy_protocol = true'
    text = config(tmp_path, service='accept = "dispatch"', http=http)
    with (
        Manager(tmp_path, text) as manager,
        socket.create_connection(manager.target().address) as sock,
    ):
        sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n")
        for _ in range(2):
            before = pids(manager)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b")"):
                answer += (piece := sock.recv(4096))
                assert piece
            assert answer.endswith(b"('192.0.2.7', 4711)")
            assert manager.reload().code == 0
            assert not until_only(manager, 2) & before


def test_the_queue_outlives_an_upgrade(tmp_path: Path) -> None:
    text = config(tmp_path, http='keep_alive = "1h"')
    with Manager(tmp_path, text) as manager, clients(manager) as kept:
        before = pids(manager)
        assert manager.run("upgrade").code == 0
        assert pids(manager) == before
        assert manager.reload().code == 0
        after = until_only(manager, 2)
        assert {each.ask() for each in kept} <= after
