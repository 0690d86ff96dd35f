"""A stop: who waits is served, and who comes later is refused at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.harness import BIN, Manager, wait_for
from tests.load.mode import Target

APP = """
import asyncio
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    query = parse_qs(scope["query_string"].decode())
    await asyncio.sleep(float(query.get("s", ["0"])[0]))
    headers = [(b"content-length", b"2"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
"""
UVICORN = f'command = ["{BIN}/uvicorn", "--fd", "{{http}}", "--no-access-log", "app:app"]'
OWN = 'app = "app:app"'
SERVICES = {
    "uvicorn": UVICORN,
    "our runtime": OWN,
    "per-worker": f'{OWN}\naccept = "per-worker"',
    "dispatch": f'{OWN}\naccept = "dispatch"',
}
SLOW = 2.0


def config(tmp_path: Path, service: str, address: str = "tcp://127.0.0.1:0") -> str:
    (tmp_path / "app.py").write_text(APP)
    return f"""
[listen]
http = "{address}"

[service.web]
{service}
listen = ["http"]
workers = 2
cwd = "{tmp_path}"
drain_timeout = 20
"""


def ask(target: Target, seconds: float) -> bytes:
    """Send one request on a new connection; return the answer."""
    with socket.socket(target.family) as client:
        client.settimeout(30)
        client.connect(target.address)
        client.sendall(f"GET /?s={seconds} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


@dataclass
class Arrivals:
    """Clients that come one after the other until told to end: how each fared, and how long."""

    target: Target
    fared: list[str] = field(default_factory=list)
    longest: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def come(self) -> None:
        while not self.over.wait(0.01):
            began = time.monotonic()
            try:
                self.fared.append("answered" if b"200 OK" in ask(self.target, 0) else "empty")
            except (ConnectionRefusedError, FileNotFoundError):
                self.fared.append("refused")
            except OSError as error:
                self.fared.append(type(error).__name__)
            self.longest = max(self.longest, time.monotonic() - began)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "unix://{}/web.sock"])
def test_in_a_stop_each_client_is_answered_or_refused_at_once(
    tmp_path: Path, service: str, address: str
) -> None:
    manager = Manager(tmp_path, config(tmp_path, service, address.format(tmp_path)))
    with ThreadPoolExecutor(8) as pool, manager:
        target = manager.target()
        arrivals = [Arrivals(target) for _ in range(3)]
        slow = [pool.submit(ask, target, SLOW) for _ in range(4)]
        coming = [pool.submit(each.come) for each in arrivals]
        wait_for(lambda: all(each.fared for each in arrivals), "clients to be answered")
        time.sleep(0.5)  # the slow ones are being answered, some of them still in the queue
        began = time.monotonic()
        assert manager.stop() == 0
        took = time.monotonic() - began
        for each in arrivals:
            each.over.set()
        for each in coming:
            each.result()
        assert all(b"200 OK" in each.result() for each in slow)
    fared = [how for each in arrivals for how in each.fared]
    assert set(fared) <= {"answered", "refused"}, fared
    assert fared.count("refused") > 10
    assert max(each.longest for each in arrivals) < SLOW / 2 < took


# Takes one client after the other, each in 0.2 s, and ends at TERM between two.
ONE_BY_ONE = """
import os, signal, socket, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
listener = socket.socket(fileno=3)
while True:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    client, _ = listener.accept()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    client.recv(65536)
    time.sleep(0.2)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    client.close()
"""


def test_who_waits_in_the_queue_at_a_stop_is_served(tmp_path: Path) -> None:
    (tmp_path / "one_by_one.py").write_text(ONE_BY_ONE)
    command = f'command = ["{BIN}/python", "one_by_one.py"]'
    with Manager(tmp_path, config(tmp_path, command)) as manager, ThreadPoolExecutor(12) as pool:
        target = manager.target()
        waiting = [pool.submit(ask, target, 0) for _ in range(12)]
        wait_for(partial(queued, manager, 6), "clients in the queue")
        assert manager.stop() == 0
        assert all(b"200 OK" in each.result() for each in waiting)


def queued(manager: Manager, number: int) -> bool:
    waiting: int = manager.status()["listeners"]["http"]["queue"]
    return waiting >= number


def test_a_manager_that_is_killed_in_a_stop_is_followed_by_one_that_serves(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, Manager(tmp_path, config(tmp_path, UVICORN)) as manager:
        target = manager.target()
        slow = pool.submit(ask, target, SLOW)
        os.kill(manager.pid, signal.SIGTERM)
        wait_for(partial(refused, target), "new clients to be refused")
        manager.kill9()
        manager.start()
        manager.wait_serving()
        assert b"200 OK" in ask(manager.target(), 0)
        slow.exception()  # it may have come too late


def refused(target: Target) -> bool:
    try:
        ask(target, 0)
    except ConnectionRefusedError:
        return True
    return False
