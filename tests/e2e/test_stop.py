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
from pwd import getpwuid

import pytest

from tests.e2e.harness import BIN, Manager, wait_for
from tests.helpers.load import Target

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
    with asking(target, seconds) as client:
        return answer_to(client)


def asking(target: Target, seconds: float) -> socket.socket:
    """Send one request on a new connection."""
    client = socket.socket(target.family)
    try:
        client.settimeout(30)
        client.connect(target.address)
        client.sendall(f"GET /?s={seconds} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    except OSError:
        client.close()
        raise
    return client


def answer_to(client: socket.socket) -> bytes:
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


# --- The delay -----------------------------------------------------------------------------------


def delayed(tmp_path: Path, *lines: str, delay: str = "60s") -> str:
    """Return a config with a delay that no test waits for, and more lines of its service."""
    top = f'stop_delay = "{delay}"\nready_file = "{tmp_path}/up"\n'
    return "\n".join((f"{top}{config(tmp_path, UVICORN)}", *lines))


def stopping(manager: Manager) -> bool:
    told: bool = manager.status()["manager"]["stopping"]
    return told


def healthy(manager: Manager, *words: str) -> bool:
    return manager.say("health", *words).code == 0


def ready_pids(manager: Manager) -> set[int]:
    return {w["pid"] for w in manager.workers() if w["state"] == "ready"}


def test_told_to_stop_it_says_so_and_serves_on_and_asked_again_it_drains(tmp_path: Path) -> None:
    with Manager(tmp_path, delayed(tmp_path)) as manager, ThreadPoolExecutor(2) as pool:
        target, up = manager.target(), tmp_path / "up"
        wait_for(lambda: healthy(manager, "--ready"), "it to be ready")
        wait_for(up.exists, "its file")
        stop = pool.submit(manager.say, "stop")
        wait_for(lambda: stopping(manager), "the stop")
        assert not up.exists()
        assert not healthy(manager, "--ready")
        assert not healthy(manager, "web", "--ready")
        assert healthy(manager)
        victim = min(ready_pids(manager))
        os.kill(victim, signal.SIGKILL)  # who dies is replaced still
        wait_for(lambda: len(ready_pids(manager) - {victim}) == 2, "its successor")
        for _ in range(20):
            assert b"200 OK" in ask(target, 0)
        reload = manager.say("reload")
        assert (reload.code, "the manager is stopping" in reload.stderr) == (1, True)
        with asking(target, SLOW) as slow:
            os.kill(manager.pid, signal.SIGTERM)
            assert manager.wait() == 0
            assert b"200 OK" in answer_to(slow)
        assert stop.result().code == 0
    by = getpwuid(os.geteuid()).pw_name
    assert f"stopping now=False by={by} delay=60" in manager.log


def test_the_delay_ends_by_itself(tmp_path: Path) -> None:
    with Manager(tmp_path, delayed(tmp_path, delay="1s")) as manager:
        began = time.monotonic()
        assert manager.stop() == 0
        assert time.monotonic() - began >= 1


def test_a_rollout_goes_on_in_the_delay_and_its_verdict_is_true(tmp_path: Path) -> None:
    with Manager(tmp_path, delayed(tmp_path)) as manager, ThreadPoolExecutor(2) as pool:
        reload = pool.submit(manager.reload)
        wait_for(lambda: "worker started worker=web@2.1" in manager.log, "the rollout")
        stop = pool.submit(manager.say, "stop")
        assert reload.result().code == 0, reload.result().stdout
        assert stopping(manager)
        assert manager.stop() == 0
        assert stop.result().code == 0


def test_a_held_canary_can_be_decided_about_in_the_delay_also_after_the_death_of_its_manager(
    tmp_path: Path,
) -> None:
    with Manager(tmp_path, delayed(tmp_path)) as manager, ThreadPoolExecutor(1) as pool:
        pool.submit(manager.say, "reload", "--canary", "50%", "--hold")
        wait_for(partial(in_canary, manager), "the canary")
        manager.kill9()
        manager.start()
        manager.wait_serving()
        os.kill(manager.pid, signal.SIGTERM)
        wait_for(lambda: stopping(manager), "the stop")
        (verdict,) = manager.run("promote").answer
        assert (verdict["verdict"], verdict["receipt"]["cutover"]) == ("committed", "steered")
        assert "no rollout is under way" in manager.say("abort").stderr
        os.kill(manager.pid, signal.SIGTERM)
        assert manager.wait() == 0


def test_a_stop_now_leaves_the_delay_out(tmp_path: Path) -> None:
    with Manager(tmp_path, delayed(tmp_path)) as manager, ThreadPoolExecutor(1) as pool:
        stop = pool.submit(manager.say, "stop")
        wait_for(lambda: stopping(manager), "the stop")
        assert manager.stop("--now") == 0
        assert stop.result().code == 0


def test_a_manager_that_is_killed_in_the_delay_leaves_no_stop_behind(tmp_path: Path) -> None:
    with Manager(tmp_path, delayed(tmp_path)) as manager:
        before = ready_pids(manager)
        os.kill(manager.pid, signal.SIGTERM)
        wait_for(lambda: stopping(manager), "the stop")
        manager.kill9()
        manager.start()
        manager.wait_serving()
        assert not stopping(manager)
        assert ready_pids(manager) == before
        wait_for((tmp_path / "up").exists, "its file")
        os.kill(manager.pid, signal.SIGTERM)
        wait_for(lambda: stopping(manager), "the stop")
        os.kill(manager.pid, signal.SIGTERM)
        assert manager.wait() == 0


def test_a_stop_in_a_canary_takes_it_back_and_resets_nobody(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool, Manager(tmp_path, config(tmp_path, OWN)) as manager:
        arrivals = Arrivals(manager.target())
        reload = pool.submit(manager.say, "reload", "--canary", "50%", "--hold")
        wait_for(partial(in_canary, manager), "the canary")
        coming = pool.submit(arrivals.come)
        wait_for(lambda: len(arrivals.fared) > 20, "clients to be answered")
        assert manager.stop() == 0
        wait_for(lambda: "refused" in arrivals.fared, "a client to be refused")
        arrivals.over.set()
        coming.result()
        verdict = reload.result()
    assert (verdict.code, "the manager is stopping" in verdict.stdout) == (1, True)
    assert set(arrivals.fared) == {"answered", "refused"}


def in_canary(manager: Manager) -> bool:
    rollout = manager.status()["services"]["web"]["rollout"]
    return bool(rollout) and rollout["phase"] == "canary"


# --- when_down -----------------------------------------------------------------------------------


def test_a_manager_whose_service_is_down_for_too_long_ends_also_if_it_is_killed_meanwhile(
    tmp_path: Path,
) -> None:
    fails = f'command = ["{BIN}/python", "-c", "raise SystemExit(1)"]\nwhen_down = "2s"'
    manager = Manager(tmp_path, f"stop_delay = 60\n{config(tmp_path, fails)}")
    try:
        manager.start()
        wait_for(lambda: "worker ended" in manager.log, "a failed start")
        manager.kill9()
        manager.start()
        assert manager.wait() == 1
        assert "down for too long service=web" in manager.log
    finally:
        manager.close()


def test_one_service_that_is_down_ends_the_others_as_a_stop_does(tmp_path: Path) -> None:
    both = (
        config(tmp_path, UVICORN)
        + f"""
[service.job]
command = ["sh", "-c", "test -e down && exit 1; exec sleep 1000"]
listen = []
cwd = "{tmp_path}"
ready = {{ delay = "50ms" }}
when_down = "3s"
"""
    )
    with Manager(tmp_path, both) as manager:
        (tmp_path / "down").touch()
        with asking(manager.target(), 2 * SLOW) as slow:
            os.kill(manager.workers("job")[0]["pid"], signal.SIGKILL)
            assert manager.wait() == 1
            assert b"200 OK" in answer_to(slow)
    assert "down for too long service=job" in manager.log
