"""Streams in a drain: the application learns of it, and what it does not end is cut off quietly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockmgr.worker import leaving
from sockmgr.worker.cutting import cut
from tests.worker.runtime import Client, Worker, serving

PATIENT = ("--drain-timeout", "600")
AT_ONCE = {"DEADLINE": "at once"}
HTTP = ("httptools", "h11", "zttp")


def begun(worker: Worker, path: str) -> Client:
    """Return a connection on which a stream has begun."""
    client = worker.client()
    client.get(path)
    client.until(b"begun")
    return client


@pytest.mark.parametrize("http", HTTP)
def test_streams_that_are_cut_off_are_one_line_and_no_error_and_end_before_the_application(
    http: str, tmp_path: Path
) -> None:
    with serving(tmp_path, *PATIENT, "--http", http, app="streams:app", **AT_ONCE) as worker:
        for _ in range(3):
            begun(worker, "/endless")
        begun(worker, "/swallowing")
        silent = worker.client()
        silent.get("/silent")
        begun(worker, "/endless")  # so the silent one has begun, too
        worker.stop()
        assert b" 500 " in silent.until(b"\r\n")
        said = worker.child.rest()
        assert worker.status() == 0
    assert said.count("6 requests were cut off at the deadline") == 1
    assert "Traceback" not in said
    assert "error:" not in said
    assert said.count("finally") == 5
    assert said.rindex("finally") < said.index("shut down")


def test_an_error_of_a_stream_that_is_cut_off_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, *PATIENT, app="streams:app", **AT_ONCE) as worker:
        begun(worker, "/broken")
        worker.stop()
        said = worker.child.rest()
    assert "ValueError: in the end of a stream" in said
    assert "error: Exception in ASGI application" in said
    assert "1 request was cut off at the deadline" in said


def test_streams_over_http2_are_cut_off_quietly_too(tmp_path: Path) -> None:
    with serving(tmp_path, *PATIENT, "--http2", app="streams:app", **AT_ONCE) as worker:
        client = worker.http2()
        for _ in range(2):
            client.get("/endless")
        client.wait()
        begun(worker, "/endless")
        worker.stop()
        said = worker.child.rest()
        assert worker.status() == 0
    assert "3 requests were cut off at the deadline" in said
    assert "error:" not in said


@pytest.mark.parametrize("path", ["/function", "/scope"])
def test_a_stream_that_hears_of_the_drain_ends_in_order(path: str, tmp_path: Path) -> None:
    with serving(tmp_path, *PATIENT, app="streams:app") as worker:
        client = begun(worker, path)
        worker.stop()
        client.until(b"ended")
        assert worker.status() == 0
        assert "cut off" not in worker.child.rest()


def test_a_thread_of_a_wsgi_application_hears_of_the_drain(tmp_path: Path) -> None:
    with serving(tmp_path, *PATIENT, app="streams:wsgi") as worker:
        client = begun(worker, "/")
        worker.stop()
        client.until(b"ended")
        assert worker.status() == 0


def test_what_is_put_in_the_place_of_uvicorns_handler_is_told_of_the_end(tmp_path: Path) -> None:
    # As sse-starlette does, which so ends its streams.
    (tmp_path / "patched.py").write_text("""
import uvicorn
from streams import app
own = uvicorn.Server.handle_exit
def handle_exit(*args):
    print("heard", flush=True)
    own(*args)
uvicorn.Server.handle_exit = handle_exit
""")
    env = {"PYTHONPATH": str(tmp_path)}
    with serving(tmp_path, *PATIENT, app="patched:app", **env) as worker:
        client = begun(worker, "/function")
        worker.stop()
        worker.prints("heard")
        client.until(b"ended")
        assert worker.status() == 0


def test_what_is_cut_off_is_spread_over_the_time_that_is_given_for_it() -> None:
    ended = []

    async def stream() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(time.monotonic())

    async def main() -> float:
        tasks = [asyncio.create_task(stream()) for _ in range(200)]
        await asyncio.sleep(0)
        began = time.monotonic()
        await cut(tasks, spread=1.0, limit=30.0)
        return began

    began = asyncio.run(main())
    assert len(ended) == 200
    for quarter in range(4):  # of 200, by chance, fewer than 20 in one of them: 1 in 10 million
        assert sum(quarter / 4 <= at - began < quarter / 4 + 0.25 for at in ended) >= 20


def test_requests_that_end_by_themselves_at_the_deadline_are_not_counted_as_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        await cut([task], spread=1.0, limit=30.0)

    asyncio.run(main())
    assert caplog.messages == []


def test_a_program_is_draining_since_it_says_stopping_and_whoever_waits_is_woken() -> None:
    program = """
import asyncio, threading
from sockmgr import worker
async def main():
    waiting = [asyncio.create_task(worker.until_draining()) for _ in range(3)]
    given_up = asyncio.create_task(worker.until_draining())
    await asyncio.sleep(0)
    given_up.cancel()
    print(worker.draining())
    threading.Thread(target=worker.stopping).start()
    await asyncio.gather(*waiting)
    await worker.until_draining()
    print(worker.draining())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\nTrue\n"
    assert not leaving.draining()
