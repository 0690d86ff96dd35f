"""A worker that is told to stop answers all that clients have begun, and leaves with 0."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.worker.deadline import FINISH
from tests.worker.runtime import KEPT, LAST, Worker, serving, started

HTTP = ("httptools", "h11", "zttp")
QUICK = ("--drain-timeout", "5")


@pytest.fixture(params=HTTP)
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Worker]:
    with serving(tmp_path, "--http", request.param, "--loop", "asyncio") as worker:
        yield worker


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", HTTP)
def test_a_request_on_a_kept_connection_after_term_is_answered_and_told_to_close(
    http: str, loop: str, tmp_path: Path
) -> None:
    with serving(tmp_path, "--http", http, "--loop", loop) as worker:
        kept = worker.warm()
        worker.stop()
        kept.get()
        assert kept.answer() == LAST
        assert kept.ended()
        assert worker.status() == 0


def test_a_connection_that_was_accepted_before_term_may_send_its_first_request_after(
    worker: Worker,
) -> None:
    fresh = worker.client()
    worker.warm().close()  # in the same queue, so the fresh one has been accepted, too
    worker.stop()
    fresh.get()
    assert fresh.answer() == LAST
    assert fresh.ended()
    assert worker.status() == 0


def test_half_a_header_before_term_and_the_rest_after_is_a_request_like_any_other(
    worker: Worker,
) -> None:
    half = worker.warm()
    half.send(b"GET / HTTP/1.1\r\nHo")
    worker.stop()
    half.send(b"st: x\r\n\r\n")
    assert half.answer() == LAST
    assert worker.status() == 0


def test_a_body_that_ends_after_term_is_read_to_its_end(worker: Worker) -> None:
    half = worker.warm()
    half.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
    worker.stop()
    half.send(b"56789")
    assert half.answer() == ("200", True, b"0123456789")
    assert half.ended()
    assert worker.status() == 0


def test_an_answer_under_way_is_finished(worker: Worker) -> None:
    slow, other = worker.warm(), worker.warm()
    slow.get("/hold")
    worker.prints("holding")
    worker.stop()
    other.get("/release")
    assert other.answer() == LAST
    assert slow.answer() == LAST
    assert slow.ended()
    assert worker.status() == 0


def test_pipelined_requests_are_all_answered_and_the_last_answer_closes(worker: Worker) -> None:
    many, other = worker.warm(), worker.warm()
    many.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    worker.prints("holding")
    worker.stop()
    other.get("/release")
    assert [many.answer() for _ in range(3)] == [KEPT, KEPT, LAST]
    assert many.ended()
    assert worker.status() == 0


def test_half_a_pipelined_request_is_answered_when_its_rest_comes(worker: Worker) -> None:
    many, other = worker.warm(), worker.warm()
    many.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
    worker.prints("holding")
    worker.stop()
    other.get("/release")
    assert many.answer() == KEPT
    many.send(b"TP/1.1\r\nHost: x\r\n\r\n")
    assert many.answer() == LAST
    assert worker.status() == 0


def test_work_that_goes_on_after_the_answer_is_waited_for(worker: Worker) -> None:
    after, other = worker.warm(), worker.warm()
    after.get("/after")
    assert after.answer() == KEPT
    worker.prints("working on")
    after.close()
    worker.stop()
    other.get("/release")
    assert other.answer() == LAST
    worker.prints("worked on")
    worker.prints("shut down")
    assert worker.status() == 0


@pytest.mark.parametrize("http", HTTP)
def test_idle_connections_are_closed_after_the_keep_alive_limit(http: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--http", http, "--keep-alive", "0.3") as worker:
        fresh, half = worker.client(), worker.client()
        half.send(b"GET / HT")
        worker.warm().close()
        worker.stop()
        assert fresh.ended()
        assert half.ended()
        assert worker.status() == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", HTTP)
def test_who_asked_while_the_process_was_stopped_is_answered_though_the_keep_alive_limit_is_over(
    http: str, loop: str, tmp_path: Path
) -> None:
    with serving(tmp_path, "--http", http, "--loop", loop, "--keep-alive", "0.3") as worker:
        asking, idle = worker.warm(), worker.warm()
        worker.child.process.signal(signal.SIGSTOP)
        asking.get("/")
        time.sleep(0.5)  # the limit, and more
        worker.child.process.signal(signal.SIGCONT)
        assert asking.answer() == KEPT
        assert idle.ended()


def test_what_is_not_done_at_the_deadline_is_cut_off_and_the_worker_leaves(tmp_path: Path) -> None:
    with serving(tmp_path, *QUICK) as worker:
        slow, idle = worker.warm(), worker.warm()
        slow.get("/hold")
        worker.prints("holding")
        worker.stop()
        assert idle.ended()
        assert slow.answer()[0] == "500"
        worker.prints("shut down")
        assert worker.status() == 0


@pytest.mark.parametrize("app", ["edges:app", "punctual:app"])
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_a_websocket_is_told_1012_before_the_deadline(ws: str, app: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--ws", ws, "--drain-timeout", "2", app=app) as worker:
        client = worker.websocket()
        worker.stop()
        assert client.exactly(4)[::3] == b"\x88\xf4"  # close, 0x03f4
        assert worker.status() == 0


@pytest.mark.parametrize(("loop", "ws"), [("asyncio", "wsproto"), ("uvloop", "websockets-sansio")])
def test_a_websocket_that_is_told_1012_may_write_until_it_has_read_that(
    loop: str, ws: str, tmp_path: Path
) -> None:
    given = ("--ws", ws, "--loop", loop, "--drain-timeout", "8")
    with serving(tmp_path, *given, app="punctual:app") as worker:
        client = worker.websocket()
        worker.stop()
        assert client.exactly(4)[::3] == b"\x88\xf4"  # close, 0x03f4
        assert client.ended()
        for _ in range(2):  # if the socket were closed, the first would bring a reset
            client.send(b"\x81\x82\x00\x00\x00\x00hi")
        client.send(b"\x89\x82\x00\x00\x00\x00hi")  # a ping, which is not answered any more
        client.close()
        assert worker.status() == 0
        assert "Traceback" not in worker.child.rest()


def test_a_websocket_is_served_on_in_a_drain(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-timeout", "600") as worker:
        client = worker.websocket()
        worker.stop()
        client.send(b"\x81\x82\x00\x00\x00\x00hi")  # a masked text frame, RFC 6455, 5.2
        assert client.exactly(4) == b"\x81\x02hi"
        client.close()
        assert worker.status() == 0


def test_a_second_stop_signal_says_that_what_is_open_must_be_done_now(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-timeout", "600") as worker:
        client, slow = worker.websocket(), worker.warm()
        slow.get("/hold")
        worker.prints("holding")
        worker.stop()
        client.send(b"\x81\x82\x00\x00\x00\x00hi")
        assert client.exactly(4) == b"\x81\x02hi"  # it has heard the first
        began = time.monotonic()
        worker.child.process.signal(signal.SIGTERM)
        assert client.exactly(4)[::3] == b"\x88\xf4"  # close, 0x03f4
        assert slow.answer()[0] == "500"
        assert worker.status() == 0
        assert time.monotonic() - began < FINISH, "the manager kills then"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_over_tls_kept_connections_are_answered_and_silent_ones_do_not_hold_up_the_end(
    loop: str, tmp_path: Path
) -> None:
    options = ("--certfile", "localhost.pem", "--keep-alive", "2", "--loop", loop)
    with serving(tmp_path, *options) as worker:
        kept, deaf = worker.client(tls=True), worker.client(tls=True)
        shaking = worker.client()  # never begins its handshake
        for client in (kept, deaf):
            client.get()
            assert client.answer() == KEPT
        worker.stop()
        kept.get()
        assert kept.answer() == LAST
        shaking.close()
        assert worker.status() == 0  # though `deaf` never answers the goodbye


def test_a_drain_that_fails_closes_what_is_open_instead_of_hanging(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("""
from edges import app
from sockmgr.worker.drain import Drain
def step(*_):
    raise RuntimeError("seeded")
Drain.step = step
""")
    env = {"PYTHONPATH": str(tmp_path)}
    with serving(tmp_path, app="failing:app", **env) as worker:
        idle = worker.warm()
        worker.stop()
        assert idle.ended()
        assert worker.status() == 0
        assert "RuntimeError: seeded" in worker.child.rest()


def test_work_that_goes_on_after_the_answer_hears_of_a_second_stop_signal(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-timeout", "600") as worker:
        after = worker.warm()
        after.get("/after")
        assert after.answer() == KEPT
        worker.prints("working on")
        after.close()
        worker.stop()
        worker.child.process.signal(signal.SIGTERM)
        assert worker.status() == 0
        assert "1 request was cut off at the deadline" in worker.child.rest()


def test_term_in_the_start_up_ends_the_worker_at_once(tmp_path: Path) -> None:
    with started(tmp_path, START_UP="hangs") as worker:
        worker.prints("starting up")
        worker.child.process.signal(15)
        assert worker.status() == 0
