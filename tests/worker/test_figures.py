"""What a real worker counts of its requests, where the manager reads it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockmgr.api.figures import Figures
from sockmgr.kernel.heartbeat import HeartbeatMemory, environment
from sockmgr.worker.figures import BUCKETS, FAILED, MARK, OwnFigures, _count, least_of
from tests.worker.programs.outcomes import SLOW
from tests.worker.runtime import PATIENCE, Worker, serving

APPS = {"ASGI": "outcomes:app", "WSGI": "outcomes:wsgi"}


@pytest.fixture
def memory() -> Iterator[HeartbeatMemory]:
    memory = HeartbeatMemory.create()
    yield memory
    memory.close()


def given(memory: HeartbeatMemory, app: str) -> dict[str, object]:
    """What starts a worker with this memory."""
    env = environment(4, None, has_figures=True)
    return {"app": APPS[app], "more_fds": [memory.fd], **env}


def counted(memory: HeartbeatMemory, done: Callable[[Figures], bool]) -> Figures:
    """Wait until the figures say what they should: the worker may count after it has answered."""
    until = time.monotonic() + PATIENCE
    while not (figures := memory.figures()) or not done(figures):
        assert time.monotonic() < until, figures
        time.sleep(0.005)
    return figures


def ask(worker: Worker, *paths: str) -> None:
    """Ask for each, on connections of their own, and wait for the ends of these."""
    for path in paths:
        client = worker.client()
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        while not client.closed():
            pass


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_answers_of_5xx_and_none_at_all_count_as_failed_and_all_others_do_not(
    http: str, memory: HeartbeatMemory, tmp_path: Path
) -> None:
    with serving(tmp_path, f"--http={http}", **given(memory, "ASGI")) as worker:
        ask(worker, "/", "/404", "/204", "/499")
        assert counted(memory, lambda f: f.answered == 4).failed == 0
        ask(worker, "/500", "/503", "/raises", "/nothing", "/breaks")
        assert counted(memory, lambda f: f.answered == 9).begun == 9
        counted(memory, lambda f: f.failed == 5)
        ask(worker, "/both")  # its error after its answer of 500 is the same failure
        assert counted(memory, lambda f: f.answered == 10).failed == 6


def test_a_client_that_goes_away_is_no_failure_of_the_application(
    memory: HeartbeatMemory, tmp_path: Path
) -> None:
    with serving(tmp_path, **given(memory, "ASGI")) as worker:
        client = worker.client()
        client.get("/gone")
        counted(memory, lambda f: f.begun == 1)
        client.close()
        assert counted(memory, lambda f: f.answered == 1).failed == 0


@pytest.mark.parametrize("app", APPS)
def test_the_time_of_a_request_is_that_of_the_application(
    app: str, memory: HeartbeatMemory, tmp_path: Path
) -> None:
    with serving(tmp_path, **given(memory, app)) as worker:
        ask(worker, "/slow")
        assert counted(memory, lambda f: f.answered == 1).percentile(0.95) > SLOW * 0.94


def test_an_answer_that_streams_counts_when_its_head_is_out(
    memory: HeartbeatMemory, tmp_path: Path
) -> None:
    with serving(tmp_path, **given(memory, "ASGI")) as worker:
        client = worker.client()
        client.get("/streams")
        counted(memory, lambda f: f.answered == 1)  # though it goes on until the client leaves
        client.until(b"\r\n\r\n")


def test_a_wsgi_application_is_counted_too(memory: HeartbeatMemory, tmp_path: Path) -> None:
    with serving(tmp_path, **given(memory, "WSGI")) as worker:
        ask(worker, "/", "/503", "/raises")
        assert counted(memory, lambda f: f.answered == 3).failed == 2


def test_each_stream_of_http2_is_a_request(memory: HeartbeatMemory, tmp_path: Path) -> None:
    with serving(tmp_path, "--http2", **given(memory, "ASGI")) as worker:
        client = worker.http2()
        for path in ("/", "/503", "/raises"):
            client.answer(client.get(path))
        assert counted(memory, lambda f: f.answered == 3).failed == 2


def test_the_handshake_of_a_websocket_is_a_request_and_its_messages_are_none(
    memory: HeartbeatMemory, tmp_path: Path
) -> None:
    with serving(tmp_path, **given(memory, "ASGI")) as worker:
        client = worker.websocket()
        for _ in range(3):
            client.send(bytes([0x81, 0x80, 0, 0, 0, 0]))
            client.exactly(7)
        assert counted(memory, lambda f: f.answered == 1) == counted(memory, lambda f: f.begun == 1)
        handshake = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\n"
        for path in (b"/refuses", b"/raises"):
            client = worker.client()
            client.send(
                b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + handshake
                + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )  # fmt: skip
            client.until(b"\r\n\r\n")
        assert counted(memory, lambda f: f.answered == 3).failed == 1


def test_a_worker_whose_memory_is_of_an_earlier_manager_serves_without_counting(
    memory: HeartbeatMemory, tmp_path: Path
) -> None:
    os.truncate(memory.fd, 32)
    with serving(tmp_path, **given(memory, "ASGI")) as worker:
        ask(worker, "/")
        assert memory.figures() is None
        worker.child.process.signal(signal.SIGTERM)
        assert worker.status() == 0


# --- The histogram -----------------------------------------------------------------------------


def test_each_time_is_in_the_bucket_that_says_so_within_6_percent() -> None:
    draw = random.Random(7)
    times = [int(10 ** draw.uniform(0, 14)) for _ in range(5000)]
    times += [least_of(n) + d for n in range(1, BUCKETS) for d in (-1, 0)]
    for took in times:
        own = OwnFigures()
        _count(own._words, took, has_failed=False)
        figures = Figures(times=tuple(own._words[MARK + 3 :]))
        (bucket,) = (n for n, count in enumerate(figures.times) if count)
        assert least_of(bucket) <= took
        assert took < least_of(bucket + 1) or bucket == BUCKETS - 1
        if 2**16 <= took < least_of(BUCKETS):
            assert abs(figures.percentile(0.5) * 1e9 - took) < 0.0626 * took
        assert not own._words[FAILED]
