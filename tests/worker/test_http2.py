"""A worker that is told to stop loses no stream: RFC 9113, 6.8."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from sockmgr.worker.http2 import PING
from tests.helpers.children import wait_until
from tests.helpers.http2 import NO_STREAM, WINDOW
from tests.worker.runtime import serving

ANSWERED = ("200", b"")
TLS = ("--certfile", "localhost.pem")
# So that a connection that ends has ended because the client has read all.
PATIENT = ("--http2", "--keep-alive", "600", "--drain-timeout", "600")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True])
def test_the_last_answer_says_goodbye_and_the_connection_ends_when_the_client_has_read_it(
    tls: bool, loop: str, tmp_path: Path
) -> None:
    with serving(tmp_path, *PATIENT, "--loop", loop, *(TLS if tls else ())) as worker:
        client = worker.http2(tls=tls)
        assert client.answer(client.get()) == ANSWERED
        worker.stop()
        first = client.get()
        client.wait()
        crossing = client.get()  # whether the goodbye has come or not: it has not been read
        assert [client.answer(stream) for stream in (first, crossing)] == [ANSWERED, ANSWERED]
        assert client.ended()
        assert client.goaways == [NO_STREAM, crossing]
        assert client.pings >= 1
        assert worker.status() == 0


def test_streams_that_are_never_all_done_are_told_to_be_the_last_and_finished(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, *PATIENT) as worker:
        client, other = worker.http2(), worker.warm()
        held, half = client.get("/hold"), client.post()
        client.body(half, b"01234", end=False)
        worker.prints("holding")
        worker.stop()
        assert client.answer(client.get()) == ANSWERED
        assert client.goaway() == NO_STREAM
        client.body(half, b"56789", end=True)
        assert client.answer(half) == ("200", b"0123456789")
        other.get("/release")
        wait_until(lambda: client.has_come(PING), what="the answer, and the question behind it")
        crossing = client.get()
        assert [client.answer(stream) for stream in (held, crossing)] == [ANSWERED, ANSWERED]
        assert client.ended()
        assert client.goaways == [NO_STREAM, crossing]
        assert client.pings == 2  # for there is another answer to be read
        assert worker.status() == 0


def test_an_answer_that_the_client_lets_come_in_parts_comes_whole(tmp_path: Path) -> None:
    with serving(tmp_path, *PATIENT) as worker:
        client = worker.http2(lazy=True)
        stream = client.get("/large")
        while len(client.answers[stream].body) < WINDOW:
            client.read()
        worker.stop()
        assert client.goaway() == NO_STREAM  # it waits for no client for ever
        client.allow(stream, 100_000)
        assert client.answer(stream) == ("200", bytes(100_000))
        assert client.ended()
        assert worker.status() == 0


def test_idle_connections_are_closed_after_the_keep_alive_limit(tmp_path: Path) -> None:
    with serving(tmp_path, "--http2", "--keep-alive", "0.3") as worker:
        silent, begun, idle = worker.client(), worker.http2(), worker.http2()
        assert idle.answer(last := idle.get()) == ANSWERED
        worker.stop()
        assert silent.ended()
        assert begun.ended()
        assert idle.ended()
        assert idle.goaways == [last]
        assert worker.status() == 0


def test_who_asked_while_the_process_was_stopped_is_answered_though_the_keep_alive_limit_is_over(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--http2", "--keep-alive", "0.3", "--loop", "uvloop") as worker:
        asking, idle = worker.http2(), worker.http2()
        for client in (asking, idle):
            assert client.answer(client.get()) == ANSWERED
        worker.child.process.signal(signal.SIGSTOP)
        asked = asking.get()
        time.sleep(0.5)  # the limit, and more
        worker.child.process.signal(signal.SIGCONT)
        assert asking.answer(asked) == ANSWERED
        assert idle.ended()


def test_what_is_not_done_at_the_deadline_is_cut_off_and_the_worker_leaves(tmp_path: Path) -> None:
    with serving(tmp_path, "--http2", "--drain-timeout", "2") as worker:
        client = worker.http2()
        stream = client.get("/hold")
        worker.prints("holding")
        worker.stop()
        assert client.answer(stream)[0] == "500"
        assert client.ended()
        worker.prints("shut down")
        assert worker.status() == 0


def test_clients_of_http_1_are_served_and_left_as_without_http2(tmp_path: Path) -> None:
    with serving(tmp_path, "--http2", "--drain-timeout", "600") as worker:
        kept, fresh, websocket = worker.warm(), worker.client(), worker.websocket()
        worker.warm().close()  # in the same queue, so the fresh one has been accepted, too
        worker.stop()
        for client in (kept, fresh):
            client.get()
            assert client.answer() == ("200", True, b"")
            assert client.ended()
        websocket.send(b"\x81\x82\x00\x00\x00\x00hi")  # a masked text frame, RFC 6455, 5.2
        assert websocket.exactly(4) == b"\x81\x02hi"
        websocket.close()
        assert worker.status() == 0


def test_the_application_sees_no_trace_of_ours_and_the_end_of_a_request_without_a_body(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--http2") as worker:
        client = worker.http2()
        assert client.answer(client.get("/state")) == ("200", b"{'started': b'yes'}")
