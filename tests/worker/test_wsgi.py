"""A WSGI application under the runtime: no request keeps a thread, and none is misunderstood."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.runtime import PATIENCE, Client, Worker, serving
from tests.worker.shapes import Shape, chunked, request, talk, talk_http2

MEBI = 1 << 20


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with wsgi(tmp_path, "--threads", "2") as worker:
        yield worker


def wsgi(directory: Path, *options: str) -> Any:
    return serving(directory, *options, app="wsgi_shapes:app")


def get(worker: Worker, path: str, *fields: str) -> bytes:
    (seen,) = talk(worker.address, Shape(name="", sends=request(path, *fields)))
    assert seen.whole
    return seen.body


def peak(worker: Worker) -> int:
    """Return the most memory that it has had, in bytes."""
    status = Path(f"/proc/{worker.child.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# --- Threads come back ---------------------------------------------------------------------------


@pytest.mark.parametrize("pause", ["50", "0"])
def test_clients_that_leave_a_stream_leave_no_thread_behind(pause: str, worker: Worker) -> None:
    for _ in range(3):
        client = worker.client()
        client.get(f"/endless?{pause}")
        client.until(b"0123456789")
        client.close()
    assert get(worker, "/one") == b"one"


@pytest.mark.parametrize("path", ["/long_by_far", "/newline_by_far"])
def test_an_answer_that_cannot_be_sent_costs_no_thread_and_is_told(
    path: str, worker: Worker
) -> None:
    for _ in range(3):
        talk(worker.address, Shape(name="", sends=request(path)))
    assert get(worker, "/one") == b"one"
    told = iter(worker.child.line, "")
    assert any(path in line and "INFO" not in line for line in told)


def test_an_endless_answer_to_head_ends_where_the_body_would_begin(worker: Worker) -> None:
    client = worker.client()
    for _ in range(3):
        client.send(request("/endless?0", method="HEAD"))
        assert b" 200 " in client.until(b"\r\n\r\n")
    assert get(worker, "/one") == b"one"


def test_who_writes_without_end_hears_that_the_client_of_a_head_has_left(worker: Worker) -> None:
    for _ in range(3):
        client = worker.client()
        client.send(request("/endless_write", method="HEAD"))
        assert b" 200 " in client.until(b"\r\n\r\n")
        client.close()
    assert get(worker, "/one") == b"one"


def test_a_request_that_calls_exit_is_an_error_and_costs_no_thread(worker: Worker) -> None:
    for _ in range(3):
        (seen,) = talk(worker.address, Shape(name="", sends=request("/leaves")))
        assert seen.status == 500
    assert get(worker, "/one") == b"one"


def test_requests_wait_for_a_thread_in_order_and_those_that_nobody_wants_are_not_run(
    tmp_path: Path,
) -> None:
    with wsgi(tmp_path, "--threads", "1", "--http2") as worker:
        client = worker.http2()
        holding = client.post("/body?all")
        first, unwanted, second = (client.get(f"/notes?{number}") for number in (1, 2, 3))
        client.reset(unwanted)
        client.body(holding, b"x", end=True)
        for stream in (holding, first, second):
            assert client.answer(stream)[0] == "200"
        assert get(worker, "/events") == b"1, 3"


def test_what_one_request_notes_in_a_context_variable_the_next_does_not_see(
    worker: Worker,
) -> None:
    kept = worker.client()
    for name in ("alice", "bob"):
        kept.get(f"/context?{name}")
        assert kept.answer()[2] == b"nobody"


# --- The drain -----------------------------------------------------------------------------------


def hold(worker: Worker) -> Client:
    """Return a client whose request runs until it sends one byte."""
    client = worker.client()
    fields = ("Content-Length: 1", "Expect: 100-continue")
    client.send(request("/body?all", *fields, method="POST", body=b""))
    assert b" 100 " in client.until(b"\r\n\r\n")
    return client


def test_requests_that_run_and_those_that_wait_are_answered_in_a_drain(tmp_path: Path) -> None:
    with wsgi(tmp_path, "--threads", "1") as worker:
        kept = worker.client()
        kept.get("/one")
        assert kept.answer()[2] == b"one"
        holder = hold(worker)
        kept.get("/sized")
        worker.stop()
        holder.send(b"x")
        assert holder.answer() == ("200", True, b"x")
        assert kept.answer() == ("200", True, b"sized")
        assert worker.status() == 0


def test_a_thread_that_hangs_does_not_keep_a_worker_beyond_its_deadline(tmp_path: Path) -> None:
    with wsgi(tmp_path, "--drain-timeout", "1") as worker:
        worker.client().get("/hangs")
        worker.prints("hanging")
        worker.stop()
        assert worker.status() == 0


# --- Memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/size", "/body?none"])
def test_an_upload_of_any_size_needs_little_memory(path: str, worker: Worker) -> None:
    before = peak(worker)
    client = worker.client()
    client.send(request(path, f"Content-Length: {200 * MEBI}", method="POST", body=b""))
    for _ in range(200):
        client.send(bytes(MEBI))
    assert client.answer()[2] == (b"%d" % (200 * MEBI) if path == "/size" else b"")
    assert peak(worker) - before < 16 * MEBI


def test_a_client_that_reads_slowly_makes_no_answer_pile_up(worker: Worker) -> None:
    before = peak(worker)
    with socket.create_connection(worker.address, timeout=PATIENCE) as sock:
        sock.sendall(request("/endless_write"))
        for _ in range(32 * MEBI // 2000):
            sock.recv(2000)
        assert peak(worker) - before < 16 * MEBI


def test_a_client_of_http2_that_reads_nothing_makes_no_answer_pile_up(tmp_path: Path) -> None:
    with wsgi(tmp_path, "--http2", "--threads", "1") as worker:
        before = peak(worker)
        client = worker.http2(lazy=True)
        stream = client.get("/endless_write")
        for size in (2 * MEBI, 4 * MEBI):
            client.allow(stream, size)
            while len(client.answers[stream].body) < size:
                client.read()
        assert peak(worker) - before < 16 * MEBI
        client.reset(stream)
        assert get(worker, "/one") == b"one"
        stream = client.get("/endless_write")
        while not client.answers[stream].body:
            client.read()
        client.close()
        assert get(worker, "/one") == b"one"


def test_an_answer_as_long_as_the_body_that_still_comes_is_not_stuck_in_http2(
    tmp_path: Path,
) -> None:
    """What the client lets come of the answer stands behind the body that it sends."""
    body, head = bytes(300_000), b"POST /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with wsgi(tmp_path, "--http2", "--threads", "1") as worker:
        for _ in range(25):
            (seen,) = talk_http2(worker.address, Shape(name="", sends=head + body))
            assert seen.body == body


def test_what_has_no_length_ends_with_the_connection_in_http_1_0(worker: Worker) -> None:
    client = worker.client()
    client.send(request("/generated", version="1.0"))
    head = client.until(b"\r\n\r\n")
    assert (b"chunked" in head, b"keep-alive" in head) == (False, False)
    assert client.exactly(3) == b"abc"
    assert client.ended()


# --- What the application is told ----------------------------------------------------------------


def test_a_body_without_a_length_is_there_for_who_asks_whether_it_ends(tmp_path: Path) -> None:
    body = request("/terminated", "Transfer-Encoding: chunked", method="POST")
    shape = Shape(name="", sends=body + chunked(b"hello", b" world"))
    with wsgi(tmp_path, "--http2") as worker:
        for client in (talk, talk_http2):
            (seen,) = client(worker.address, shape)
            assert seen.body == b"hello world"


def test_cookies_of_several_fields_are_one_cookie(tmp_path: Path) -> None:
    with wsgi(tmp_path, "--http2") as worker:
        shape = Shape(name="", sends=request("/environment", "Cookie: a=1", "Cookie: b=2"))
        for client in (talk, talk_http2):
            (seen,) = client(worker.address, shape)
            assert json.loads(seen.body)["HTTP_COOKIE"] == "a=1; b=2"


def test_a_field_with_an_underscore_does_not_pass_for_one_with_a_dash(tmp_path: Path) -> None:
    fields = ("X_Remote_User: admin", "X-Remote-User: alice", "X_Forwarded-For: 1.2.3.4")
    with wsgi(tmp_path, "--http2") as worker:
        for client in (talk, talk_http2):
            (seen,) = client(worker.address, Shape(name="", sends=request("/environment", *fields)))
            assert json.loads(seen.body)["HTTP_X_REMOTE_USER"] == "alice"
            assert "HTTP_X_FORWARDED_FOR" not in json.loads(seen.body)


def test_the_prefix_of_the_application_is_its_script_name(tmp_path: Path) -> None:
    with wsgi(tmp_path, "--root-path", "/shop") as worker:
        environ = json.loads(get(worker, "/environment/%FF"))
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/shop", "/environment/\xff")


def test_an_error_is_one_traceback_with_the_request_under_it(worker: Worker) -> None:
    talk(worker.address, Shape(name="", sends=request("/fails_at_once/a%20b?c=d")))
    told = []
    while not (line := worker.child.line()).startswith("request: "):
        told.append(line)
    assert line == "request: GET /fails_at_once/a%20b?c=d HTTP/1.1"
    assert told[-1] == "ValueError: at once"
    assert sum(bool(re.match("Traceback", each)) for each in told) == 1
