"""The stand-in, started as a worker is, and what clients of all kinds get from it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.dev import stand_in as module

PROGRAM = str(Path(module.__file__))
TOLD = {"id": "42", "header": "X-Sockmgr-Error", "html": "<h1>broken</h1>", "text": "broken\n"}


class StandIn:
    """A stand-in on a port of its own."""

    def __init__(self, directory: Path, *options: str, host: str = "127.0.0.1") -> None:
        self.page = directory / "page"
        self.tell(TOLD)
        self._listener = socket.create_server((host, 0))
        launcher = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        )
        fd = self._listener.fileno()
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", launcher, str(fd),
                sys.executable, "-I", "-S", PROGRAM, *options, str(self.page),
            ],
            pass_fds=(fd, 3), env={**os.environ, "LISTEN_FDS": "1"},
        )  # fmt: skip

    def tell(self, told: dict[str, str]) -> None:
        self.page.write_text(json.dumps(told))

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        port = self._listener.getsockname()[1]
        return socket.create_connection((host, port), timeout=20)

    def ask(self, request: bytes, host: str = "127.0.0.1") -> str:
        with self.connect(host) as sock:
            sock.sendall(request)
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return answer.decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.close()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    started = StandIn(tmp_path)
    yield started
    started.close()


BROWSER = b"GET /a?b HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*\r\n\r\n"
CURL = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\n\r\n"


def test_a_browser_gets_the_page_and_curl_the_text(stand_in: StandIn) -> None:
    head, _, body = stand_in.ask(BROWSER).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503 ")
    assert "X-Sockmgr-Error: 42" in head
    assert "no-store" in head
    assert body == TOLD["html"]
    assert stand_in.ask(CURL).endswith("\r\n\r\nbroken\n")


def test_head_gets_no_body(stand_in: StandIn) -> None:
    head, _, body = stand_in.ask(BROWSER.replace(b"GET", b"HEAD")).partition("\r\n\r\n")
    assert f"Content-Length: {len(TOLD['html'])}" in head
    assert body == ""


def test_a_body_that_nobody_reads_does_not_cost_the_answer(stand_in: StandIn) -> None:
    body = b"x" * 1_000_000
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert stand_in.ask(request + body).endswith("broken\n")


def test_the_page_is_read_anew_for_each_request(stand_in: StandIn) -> None:
    assert stand_in.ask(CURL).endswith("broken\n")
    stand_in.tell({**TOLD, "text": "still broken\n"})
    assert stand_in.ask(CURL).endswith("still broken\n")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\r\n\r\n", b"\0" * 70_000, b"SSH-2.0\r\n\r\n"])
def test_what_is_not_http_gets_no_answer(stand_in: StandIn, garbage: bytes) -> None:
    with stand_in.connect() as sock:
        sock.sendall(garbage)
        with contextlib.suppress(ConnectionResetError):  # more came than was read
            assert sock.recv(100) == b""
    assert stand_in.ask(CURL).endswith("broken\n")


def test_many_silent_clients_keep_nobody_from_an_answer(stand_in: StandIn) -> None:
    silent = [stand_in.connect() for _ in range(module.CONNECTIONS_MAX + 20)]
    assert stand_in.ask(CURL).endswith("broken\n")
    for sock in silent:
        sock.close()


def test_it_ends_with_0_at_term_and_answers_who_is_connected(stand_in: StandIn) -> None:
    with stand_in.connect() as sock:
        sock.sendall(CURL[:-2])
        assert stand_in.ask(CURL)  # so the connection before was accepted
        stand_in.process.send_signal(signal.SIGTERM)
        sock.sendall(CURL[-2:])
        assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
    assert stand_in.process.wait(20) == 0


def test_it_ends_at_once_when_nobody_waits(stand_in: StandIn) -> None:
    assert stand_in.ask(CURL)
    assert stand_in.stop() == 0


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        (b"", True),  # HTTP/1.0
        (b"Host: 127.0.0.1:8000\r\n", True),
        (b"Host: LOCALHOST\r\n", True),
        (b"Host: shop.localhost:8000\r\n", True),
        (b"Host: [::1]:8000\r\n", True),
        (b"Host: evil.example\r\n", False),
        (b"Host: localhost.evil.example\r\n", False),
        (b"Host: 127.0.0.1.evil.example:8000\r\n", False),
        (b"Host: localhost\r\nHost: evil.example\r\n", False),
        (b"Host: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n", False),
        (b"Host: localhost\r\nx-forwarded-proto: https\r\n", False),
        (b"Host: localhost\r\nForwarded: for=203.0.113.9\r\n", False),
        (b"Host: localhost\r\nVia: 1.1 proxy\r\n", False),
    ],
)
def test_source_is_for_who_asks_this_machine_itself_and_through_no_proxy(
    stand_in: StandIn, headers: bytes, shown: bool
) -> None:
    answer = stand_in.ask(b"GET / HTTP/1.1\r\n" + headers + b"Accept: text/html\r\n\r\n")
    assert answer.startswith("HTTP/1.1 503 ")
    assert (TOLD["html"] in answer) is shown
    assert ("dev.error_page = true" in answer) is not shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("uid", "shown"), [(0, True), (65534, False)])
def test_other_users_of_this_machine_get_no_source(
    stand_in: StandIn, uid: int, shown: bool
) -> None:
    ask = (  # who has become somebody else may import nothing more
        "import os, socket, sys; os.setuid(int(sys.argv[2])); s = socket.socket(); "
        "s.connect((b'127.0.0.1', int(sys.argv[1]))); "
        "s.sendall(b'GET / HTTP/1.1\\r\\nAccept: text/html\\r\\n\\r\\n'); "
        "print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    with stand_in.connect() as sock:
        port = str(sock.getpeername()[1])
    command = [sys.executable, "-I", "-S", "-c", ask, port, str(uid)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    assert (TOLD["html"] in answer.stdout) is shown


def test_other_machines_get_no_source_unless_that_is_allowed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = sock.getsockname()[0]
    for options, shown in (((), False), (("--to-everyone",), True)):
        started = StandIn(tmp_path, *options, host="")
        try:
            assert started.ask(CURL, address).endswith("broken\n") is shown
            assert (TOLD["html"] in started.ask(BROWSER, address)) is shown
        finally:
            started.close()
