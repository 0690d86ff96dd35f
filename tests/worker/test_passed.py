"""The runtime with connections that the manager accepted, and what it reports of them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.children import Child
from tests.worker.passing import Passing, dispatching
from tests.worker.runtime import LAST, Worker

LOOPS = ("asyncio", "uvloop")


@pytest.fixture(params=LOOPS)
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Passing]:
    with dispatching(tmp_path, "--loop", request.param) as worker:
        worker.hears("READY")
        yield worker


def halt(child: Child) -> None:
    child.process.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)


def test_it_answers_the_managers_question_when_the_start_up_is_done(tmp_path: Path) -> None:
    with dispatching(tmp_path) as worker:
        worker.channel.ask(7)
        worker.hears("READY")
        assert worker.reports(taken=0, closed=0).answered == 7


def test_a_connection_has_ended_when_the_client_or_the_server_has_closed_it(
    worker: Passing,
) -> None:
    kept, socket_ = worker.warm(), worker.websocket()
    kept.close()
    worker.reports(taken=2, closed=1)
    socket_.close()
    worker.reports(taken=2, closed=2)
    last = worker.client()
    last.send(b"GET / HTTP/1.0\r\n\r\n")
    assert last.answer()[0] == "200"
    assert last.ended()
    worker.reports(taken=3, closed=3)


def test_what_waits_in_the_channel_at_term_is_taken_and_answered(worker: Passing) -> None:
    halt(worker.child)
    waiting = [worker.client() for _ in range(3)]
    for client in waiting:
        client.get()
    worker.child.process.signal(signal.SIGTERM)
    worker.child.process.signal(signal.SIGCONT)
    for client in waiting:
        assert client.answer() == LAST
        assert client.ended()
    worker.reports(taken=3, closed=3)
    assert worker.status() == 0


def test_the_ends_of_connections_are_reported_through_the_drain(worker: Passing) -> None:
    one, other, socket_ = worker.warm(), worker.warm(), worker.websocket()
    worker.stop()
    one.get()
    assert one.answer() == LAST
    worker.reports(taken=3, closed=1)
    other.get()
    assert other.answer() == LAST
    worker.reports(taken=3, closed=2)
    socket_.close()
    assert worker.status() == 0


def test_what_is_passed_after_term_is_left_for_another_worker(worker: Passing) -> None:
    kept = worker.warm()
    worker.stop()
    kept.get()
    assert kept.answer() == LAST
    with contextlib.closing(worker.client()):
        assert worker.status() == 0
        back = worker.channel.take_back()
    assert back
    os.close(back.passed[0].fd)


def test_it_drains_and_leaves_when_no_manager_can_come_back(tmp_path: Path) -> None:
    with dispatching(tmp_path) as worker:
        worker.hears("READY")
        kept = worker.warm()
        worker.channel.close()
        worker.hears("STOPPING")
        kept.get()
        assert kept.answer() == LAST
        assert worker.status() == 0


def test_over_tls_a_handshake_that_fails_is_the_end_of_a_connection(tmp_path: Path) -> None:
    with dispatching(tmp_path, "--certfile", "localhost.pem") as worker:
        worker.hears("READY")
        broken = Worker.client(worker)
        accepted, _ = worker.listener.accept()
        with accepted:
            worker.channel.send([accepted.fileno()], bytes(1))
        broken.send(b"GET / HTTP/1.1\r\n\r\n")
        worker.reports(taken=1, closed=1)


def test_a_uvicorn_that_does_not_fit_cannot_take_what_is_passed_and_that_is_said(
    tmp_path: Path,
) -> None:
    (tmp_path / "other.py").write_text("""
import uvicorn
from edges import app
del uvicorn.Server.on_tick
""")
    with dispatching(tmp_path, app="other:app", PYTHONPATH=str(tmp_path)) as worker:
        told = worker.child.rest()
        assert worker.status() == 3
    assert "lacks Server.on_tick: it takes no connections that the manager accepted" in told
