"""A worker that is told to stop gives its connections to another one, and no client sees it."""

from __future__ import annotations

import contextlib
import itertools
import resource
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.worker.moving import MOVED, Service, service
from tests.worker.runtime import KEPT, LAST, Client, Worker

HTTP = ("httptools", "h11", "zttp")
KINDS = list(itertools.product(HTTP, ("asyncio", "uvloop")))


def says(worker: Worker) -> bytes:
    return str(worker.child.pid).encode()


def is_served_by(client: Client, worker: Worker) -> bool:
    client.get("/pid")
    return client.answer() == ("200", False, says(worker))


# --- What moves ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("http", "loop"), KINDS)
def test_connections_go_on_in_the_next_worker_as_soon_as_their_answers_are_out(
    http: str, loop: str, tmp_path: Path
) -> None:
    """An idle one, a fresh one, one with an answer under way, and one in the midst of a request."""
    options = ("--http", http, "--loop", loop, "--keep-alive", "3600")
    with service(tmp_path) as web:
        old = web.worker(*options)
        kept, busy, half, body = (old.warm() for _ in range(4))
        fresh = old.client()
        old.warm().close()  # in the same queue, so the fresh one has been accepted, too
        busy.get("/hold")
        old.prints("holding")
        half.send(b"GET /pid HTTP/1.1\r\nHo")
        body.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
        sync = old.warm()  # what was sent before it was read before it
        new = web.worker(*options)
        old.stop()
        for client in (kept, fresh, sync):
            assert is_served_by(client, new)
        half.send(b"st: x\r\n\r\n")
        assert half.answer() == ("200", False, says(old))
        body.send(b"56789")
        assert body.answer() == ("200", False, b"0123456789")
        old.child.process.signal(signal.SIGUSR1)
        assert busy.answer() == KEPT
        # Before that a request that comes as the answer goes out may still be read by the old one.
        assert old.status() == 0
        for client in (half, body, busy):
            assert is_served_by(client, new)


@pytest.mark.parametrize("http", HTTP)
def test_pipelined_requests_that_were_read_are_answered_first_and_what_follows_elsewhere(
    http: str, tmp_path: Path
) -> None:
    with service(tmp_path) as web:
        old = web.worker("--http", http)
        many = old.warm()
        many.send(
            b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        old.prints("holding")
        new = web.worker("--http", http)
        old.stop()
        old.child.process.signal(signal.SIGUSR1)
        assert many.answer() == KEPT
        assert many.answer()[:2] == ("200", False)
        assert old.status() == 0  # as above
        assert is_served_by(many, new)


def test_wsgi_connections_move_as_well(tmp_path: Path) -> None:
    with service(tmp_path) as web:
        old = web.worker(app="shop:Site.wsgi")
        client = old.client()
        client.get("/x")
        assert client.answer() == ("200", False, b"wsgi /x")
        web.worker(app="shop:Site.wsgi")
        old.stop()
        assert old.status() == 0
        client.get("/x")
        assert client.answer() == ("200", False, b"wsgi /x")


def test_what_works_on_after_the_answer_is_waited_for_and_its_connection_is_not(
    tmp_path: Path,
) -> None:
    with service(tmp_path) as web:
        old = web.worker()
        after = old.warm()
        after.get("/after")
        assert after.answer() == KEPT
        old.prints("working on")
        new = web.worker()
        old.stop()
        assert is_served_by(after, new)
        old.child.process.signal(signal.SIGUSR1)
        old.prints("worked on")
        assert old.status() == 0


# --- What is told of it --------------------------------------------------------------------------


@pytest.mark.parametrize("http", HTTP)
def test_it_is_told_how_many_requests_it_had_and_since_when_it_is_idle(
    http: str, tmp_path: Path
) -> None:
    with service(tmp_path) as web:
        old = web.worker("--http", http)
        kept = old.warm()
        before = time.monotonic()
        kept.get()
        assert kept.answer() == KEPT
        old.stop()
        told, sock = web.given()
        assert sock.getpeername() == kept.name
        assert before <= told.pop("idle_since") <= time.monotonic()
        assert told == {"version": 1, "requests": 2}
        assert old.status() == 0


@pytest.mark.parametrize(("http", "loop"), KINDS)
def test_the_keep_alive_limit_of_a_connection_does_not_begin_anew(
    http: str, loop: str, tmp_path: Path
) -> None:
    with service(tmp_path) as web:
        client = web.client()
        web.pass_on(idle_since=time.monotonic() - 3598)
        web.worker("--http", http, "--loop", loop, "--keep-alive", "3600")
        assert client.ended()


def test_a_request_that_came_on_the_way_is_answered_though_the_time_is_over(
    tmp_path: Path,
) -> None:
    with service(tmp_path) as web:
        client = web.client()
        client.get("/pid")
        web.pass_on()
        worker = web.worker()
        assert client.answer() == ("200", False, says(worker))


def test_the_client_that_a_proxy_told_of_is_known_to_the_next_worker(tmp_path: Path) -> None:
    options = ("--proxy-protocol", "--trusted-proxy", "127.0.0.1")
    with service(tmp_path) as web:
        old = web.worker(*options)
        client = web.client(first=b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n")
        client.get("/client")
        assert client.answer() == ("200", False, b"('192.0.2.7', 4711)")
        web.worker(*options)
        old.stop()
        assert old.status() == 0
        client.get("/client")
        assert client.answer() == ("200", False, b"('192.0.2.7', 4711)")


# --- Where nobody takes --------------------------------------------------------------------------


@pytest.mark.parametrize("http", HTTP)
def test_without_a_taker_it_drains_as_ever(http: str, tmp_path: Path) -> None:
    with service(tmp_path) as web:
        old = web.worker("--http", http, "--keep-alive", "0.3")
        kept, slow = old.warm(), old.warm()
        slow.get("/hold")
        old.prints("holding")
        web.give.shutdown(socket.SHUT_WR)  # as the manager does, when all are to stop
        old.stop()
        old.child.process.signal(signal.SIGUSR1)
        assert slow.answer() == LAST
        assert kept.ended()
        assert old.status() == 0


def test_the_last_worker_takes_what_waits_and_drains_it(tmp_path: Path) -> None:
    with service(tmp_path) as web:
        worker = web.worker("--keep-alive", "2")
        worker.child.process.signal(signal.SIGSTOP)
        waiting = [web.client() for _ in range(3)]
        for client in waiting:
            client.get("/pid")
            web.pass_on()
        web.give.shutdown(socket.SHUT_WR)
        worker.child.process.signal(signal.SIGTERM)
        worker.child.process.signal(signal.SIGCONT)
        for client in waiting:
            assert client.answer() == ("200", True, says(worker))
        assert worker.status() == 0


def test_what_waits_for_a_worker_that_dies_is_taken_by_the_next(tmp_path: Path) -> None:
    with service(tmp_path) as web:
        dying = web.worker()
        dying.child.process.signal(signal.SIGSTOP)
        waiting = [web.client() for _ in range(3)]
        for _ in waiting:
            web.pass_on()
        dying.child.process.signal(signal.SIGKILL)
        dying.status()
        next_one = web.worker()
        assert all(is_served_by(client, next_one) for client in waiting)


def test_what_cannot_move_drains_as_ever(tmp_path: Path) -> None:
    with service(tmp_path) as web:
        old = web.worker("--drain-timeout", "4")
        websocket = old.websocket()
        upgrade = old.client()
        upgrade.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n"
        )
        assert upgrade.answer() == KEPT
        web.worker()
        old.stop()
        websocket.send(b"\x81\x82\x00\x00\x00\x00hi")
        assert websocket.exactly(4) == b"\x81\x02hi"
        assert websocket.exactly(4)[::3] == b"\x88\xf4"
        assert old.status() == 0
        said = "connections given to other workers: 0; these could not move: 1 Upgrade, 1 WebSocket"
        assert said in old.child.rest()


# --- Who gives what is none ----------------------------------------------------------------------


def hostile(web: Service, tmp_path: Path) -> list[tuple[str, Any, Sequence[int]]]:
    """Return what may come: why it is refused, the message, and the descriptors with it."""
    elsewhere = web.keep(socket.create_server(("127.0.0.1", 0)))
    outgoing = web.keep(socket.create_connection(elsewhere.getsockname()))
    datagram = web.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    file = web.keep((tmp_path / "file").open("w"))
    web.client()
    accepted = web.accept()
    return [
        ("it is a listening socket", MOVED, [web.listener.fileno()]),
        ("it is no socket", MOVED, [file.fileno()]),
        ("it is no stream socket", MOVED, [datagram.fileno()]),
        ("it came to another listener", MOVED, [outgoing.fileno()]),
        ("0 descriptors came with it", MOVED, []),
        ("it did not come whole", MOVED, [accepted] * 2),
        ("its message cannot be read", b"", [accepted]),
        ("its message cannot be read", b"{" * 4000, [accepted]),
        ("it did not come whole", b"x" * 5000, [accepted]),
        ("version 2", MOVED | {"version": 2}, [accepted]),
        ("no instant", MOVED | {"idle_since": "now"}, [accepted]),
        ("its message cannot be read", MOVED | {"idle_since": 10**400}, [accepted]),
        ("a number that cannot be", MOVED | {"requests": -1}, [accepted]),
    ]


def test_what_is_no_connection_of_the_service_is_closed_and_nothing_else_happens(
    tmp_path: Path,
) -> None:
    with service(tmp_path) as web:
        cases = hostile(web, tmp_path)
        worker = web.worker(app="talkative:app")
        descriptors = Path(f"/proc/{worker.child.pid}/fd")
        kept = worker.warm()  # since then it has nothing open for a moment only
        before = len(list(descriptors.iterdir()))
        for why, message, fds in cases:
            web.offer(message, *fds)
            while why not in (line := worker.child.line()):
                assert line, why
        assert len(list(descriptors.iterdir())) == before
        assert is_served_by(kept, worker)


def test_one_that_is_given_twice_harms_nobody_else(tmp_path: Path) -> None:
    with service(tmp_path) as web:
        client = web.client()
        connection = web.accept()
        worker = web.worker()
        for _ in range(2):
            web.offer(MOVED, connection)
        client.get("/pid")
        assert client.answer() == ("200", False, says(worker))
        assert is_served_by(web.client(), worker)


# --- Many ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def files(number: int) -> Iterator[None]:
    """Allow this process, and those that it starts, so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def may_open(number: int, worker: Worker) -> None:
    resource.prlimit(worker.child.pid, resource.RLIMIT_NOFILE, (number, number))


def test_five_thousand_move_though_one_of_the_next_may_open_few_files(tmp_path: Path) -> None:
    number = 5000
    with files(number + 100), service(tmp_path) as web:
        options = ("--keep-alive", "3600", "--no-access-log")
        old, kept = web.worker(*options), []
        may_open(number + 100, old)
        for _ in range(number):
            kept.append(client := web.client())
            client.get()
        assert all(client.answer() == KEPT for client in kept)
        small, large = (web.worker(*options) for _ in range(2))
        may_open(1024, small)
        may_open(number + 100, large)
        old.stop()
        assert old.status() == 0
        for client in kept:
            client.get("/pid")
        answers = [client.answer() for client in kept]
        by = [answers.count(("200", False, says(each))) for each in (small, large)]
        assert sum(by) == number
        assert 0 < by[0] < 1024
