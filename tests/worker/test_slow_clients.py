"""A client that does not send the head of a request is not waited for without end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.worker.passing import dispatching
from tests.worker.runtime import KEPT, Client, serving

HTTP = ("httptools", "h11", "zttp")
SHORT = ("--header-timeout", "1", "--keep-alive", "600")


def drip(client: Client, data: bytes) -> bool:
    """Send a byte each 50 ms until the connection is closed; True if it was before the end."""
    pause = threading.Event()
    try:
        for byte in data:
            client.send(bytes([byte]))
            pause.wait(0.05)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("http", HTTP)
def test_a_client_that_sends_no_whole_head_in_time_is_closed(http: str, tmp_path: Path) -> None:
    with serving(tmp_path, *SHORT, "--http", http) as worker:
        silent, half, kept = worker.client(), worker.client(), worker.warm()
        half.send(b"GET / HTTP/1.1\r\nHo")
        kept.send(b"GET / HTTP/1.1\r\nHo")
        slow = worker.client()
        assert drip(slow, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100)
        for client in (silent, half, kept):
            assert client.closed()


@pytest.mark.parametrize("http", HTTP)
def test_whoever_has_sent_a_head_has_time(http: str, tmp_path: Path) -> None:
    with serving(tmp_path, *SHORT, "--http", http) as worker:
        idle, held, body, piped = (worker.warm() for _ in range(4))
        held.get("/hold")
        body.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n")
        piped.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        websocket = worker.websocket()
        assert not drip(body, b"x" * 60)  # 3 s: all of the others have been looked at
        assert body.answer() == ("200", False, b"x" * 60)
        idle.get("/release")
        assert idle.answer() == KEPT
        assert held.answer() == KEPT
        assert [piped.answer() for _ in range(2)] == [KEPT, KEPT]
        websocket.send(b"\x81\x82\x00\x00\x00\x00hi")
        assert websocket.exactly(4) == b"\x81\x02hi"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_came_while_the_application_blocked_the_loop_is_not_late(
    loop: str, tmp_path: Path
) -> None:
    (tmp_path / "blocking.py").write_text("""
import time
from edges import answer, app as others
from sockmgr.worker import server
server.LOOK = 1  # at each turn, so in the first one after that, too
async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/sleep":
        print("asleep", flush=True)
        time.sleep(2.5)
    await others(scope, receive, send)
""")
    env = {"PYTHONPATH": str(tmp_path)}
    with serving(tmp_path, *SHORT, "--loop", loop, app="blocking:app", **env) as worker:
        waiting, blocking = [worker.client() for _ in range(20)], worker.warm()
        blocking.get("/sleep")
        worker.prints("asleep")
        for client in waiting:
            client.get()
        for client in (*waiting, blocking):
            assert client.answer() == KEPT


def test_a_client_of_http2_has_so_long_for_its_first_request_only(tmp_path: Path) -> None:
    with serving(tmp_path, *SHORT, "--http2") as worker:
        silent, used, bare = worker.http2(), worker.http2(), worker.client()
        assert used.answer(used.get()) == ("200", b"")
        assert bare.closed()
        assert silent.ended()
        assert used.answer(used.get()) == ("200", b"")


def test_over_tls_too(tmp_path: Path) -> None:
    with serving(tmp_path, *SHORT, "--certfile", "localhost.pem") as worker:
        assert worker.client(tls=True).closed()


def test_the_places_that_the_manager_gives_come_back(tmp_path: Path) -> None:
    with dispatching(tmp_path, *SHORT) as worker:
        worker.hears("READY")
        silent = [worker.client() for _ in range(5)]
        worker.reports(taken=5, closed=5)
        assert all(client.closed() for client in silent)
