"""What workers write, and what the manager says: never blocking, bounded, nothing torn."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sockmgr.log import Log
from sockmgr.output import PENDING_MAX, RECORDS_MAX, TAIL_LINES, Output, RecordHandler, Sink

F_SETPIPE_SZ = 1031


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page, which is full soon."""
    read, write = os.pipe()
    fcntl.fcntl(write, F_SETPIPE_SZ, 4096)
    try:
        yield read, write
    finally:
        os.close(read)
        os.close(write)


def take_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    taken = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return taken
        if not piece:
            return taken
        taken += piece


def test_a_sink_that_nobody_reads_does_not_block_and_keeps_what_is_bounded() -> None:
    with pipe() as (read, write):
        sink = Sink(write)
        for _ in range(20_000):
            sink.write("x" * 99 + "\n")
        assert sink.full
        assert PENDING_MAX < sink.pending <= RECORDS_MAX + 100
        take_all(read)
        sink.close(patience=0.01)


def test_what_was_dropped_is_counted_once_there_is_a_reader_again() -> None:
    async def scenario(read: int, write: int) -> bytes:
        sink = Sink(write)
        sink.attach(asyncio.get_running_loop())
        for _ in range(20_000):
            sink.write("x" * 99 + "\n")
        taken = b""
        while b"records were dropped" not in taken:
            taken += take_all(read)
            await asyncio.sleep(0)
        asyncio.get_running_loop().remove_writer(write)
        return taken

    with pipe() as (read, write):
        taken = asyncio.run(scenario(read, write))
    *lines, last = taken.decode().splitlines()
    assert set(lines) == {"x" * 99}  # none is torn
    assert int(last.split()[0]) + len(lines) == 20_000


def test_a_reader_that_is_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    sink = Sink(write)
    sink.write("to nobody\n")
    assert sink.pending == 0
    os.close(write)


def test_a_worker_waits_while_nobody_takes_what_it_wrote() -> None:
    async def scenario(read: int, write: int) -> None:
        loop = asyncio.get_running_loop()
        sink = Sink(write)
        sink.attach(loop)
        output = Output("web@1.1", sink, loop)
        os.set_blocking(output.writer, False)
        written = 0
        while True:  # until the worker's own pipe is full and stays so
            try:
                written += os.write(output.writer, b"y" * 79 + b"\n")
            except BlockingIOError:
                if sink.full:
                    break
            await asyncio.sleep(0)
        taken = b""
        while taken.count(b"y" * 79) * 80 < written:
            taken += take_all(read)
            await asyncio.sleep(0)
        output.spawned()
        output.close()
        loop.remove_writer(write)

    with pipe() as (read, write):
        asyncio.run(scenario(read, write))


def test_the_last_lines_are_kept_and_long_ones_are_cut() -> None:
    async def scenario(read: int, write: int) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        sink = Sink(write)
        output = Output("web@1.1", sink, loop)
        text = "".join(f"line {n}\n" for n in range(30)) + "z" * 10_000 + "\nno newline \xff"
        os.write(output.writer, text.encode("latin-1"))
        output.spawned()
        output.close()
        take_all(read)
        sink.close(patience=0.01)
        return output.tail

    with pipe() as (read, write):
        tail = asyncio.run(scenario(read, write))
    assert len(tail) == TAIL_LINES
    assert tail[-1] == "no newline \ufffd"
    assert max(map(len, tail)) < 10_000
    assert "line 29" in tail


def test_with_json_every_line_is_an_object() -> None:
    with pipe() as (read, write):
        sink = Sink(write, as_json=True)
        handler = RecordHandler(sink)
        logger = logging.getLogger("sockmgr.test.output")
        logger.addHandler(handler)
        logger.propagate = False
        Log("sockmgr.test.output").warning("worker killed", worker="web@1.1", why="too late")
        logger.removeHandler(handler)
        record = json.loads(take_all(read))
        sink.line("web@1.1", 'says "hello"')
        line = json.loads(take_all(read))
    assert (record["level"], record["message"]) == ("warning", "worker killed")
    assert (record["worker"], record["why"]) == ("web@1.1", "too late")
    assert line == {"worker": "web@1.1", "line": 'says "hello"'}
