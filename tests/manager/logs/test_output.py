"""What workers write, and what the manager says: never blocking, bounded, nothing torn."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import pty
import resource
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sockmgr.api.records import EventKind
from sockmgr.config.manager_keys import Format, Logs
from sockmgr.fleet.endings import Ending
from sockmgr.fleet.messages import (
    State,
)
from sockmgr.log import Log
from sockmgr.manager.logs.output import FEW, TAIL_LINES, Output
from sockmgr.manager.logs.sink import PENDING_MAX, RECORDS_MAX, RecordHandler, Sink
from sockmgr.terminal.pieces import Piece

F_SETPIPE_SZ = 1031
JSON = Logs(format=Format.JSON)


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
        while b"lines are missing here" not in taken:
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


def printed(data: bytes, *, as_json: bool = False) -> tuple[bytes, tuple[str, ...], Sink]:
    """Return what becomes of what a worker prints: what is written, and its last lines."""

    async def scenario() -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        output = Output("web@1.1", sink, loop)
        await loop.run_in_executor(None, write_all, output.writer, data)
        output.close()
        return output.tail

    with tempfile.TemporaryFile() as file:
        sink = Sink(file.fileno(), JSON if as_json else Logs())
        tail = asyncio.run(scenario())
        sink.close()
        file.seek(0)
        return file.read(), tail, sink


def write_all(fd: int, data: bytes) -> None:
    with open(fd, "wb") as pipe:
        pipe.write(data)


def test_no_line_is_cut_and_a_long_one_comes_in_marked_pieces() -> None:
    long = b"".join(b"%07d " % n for n in range(25_000))  # 200 000 bytes, then as many without end
    written, tail, sink = printed(b"before\n" + long + b"\nafter\n" + long)
    parts = [line.split(b" ", 2) for line in written.splitlines()]
    assert {name for name, _, _ in parts} == {b"web@1.1"}
    pieces = [(mark, text) for _, mark, text in parts]
    assert (pieces[0], pieces[14]) == ((b"|", b"before"), (b"|", b"after"))
    assert [mark for mark, _ in pieces[1:14]] == [b"\\"] * 12 + [b"|"]
    assert b"".join(text for _, text in pieces[1:14]) == long
    assert b"".join(text for _, text in pieces[15:]) == long
    kept = sink.ring.since(0, "web")
    assert "".join(line.message for line in kept[-13:]) == long.decode()
    assert [line.partial for line in kept[-13:]] == [True] * 12 + [None]
    assert tail[-1] == long.decode()
    assert tail[0].startswith("...")
    assert long.decode().endswith(tail[0].removeprefix("..."))


def test_bytes_that_are_no_text_reach_a_file_as_they_are() -> None:
    written, tail, sink = printed(b"caf\xe9 \x1b[2J\rx\r\nbye \xff")
    assert written == b"web@1.1 | caf\xe9 \x1b[2J\rx\nweb@1.1 | bye \xff\n"
    assert tail == ("caf\\xe9 \x1b[2J\rx", "bye \\xff")
    assert [line.message for line in sink.ring.since(0, "")] == list(tail)
    written, _, _ = printed(b"caf\xe9\n", as_json=True)
    assert json.loads(written)["line"] == "caf\\xe9"


NOT_OBJECTS = [
    b"{", b'{"a": NaN}', b"[1]", b"1", b'{"a": "caf\xe9"}', b'{"a": 1} {"b": 2}', b"{}",
    b'{"a":' * 2500 + b"1" + b"}" * 2500 + b",",
]  # fmt: skip


@pytest.mark.parametrize("said", NOT_OBJECTS, ids=range(len(NOT_OBJECTS)))
def test_what_is_no_json_object_or_an_empty_one_is_a_text(said: bytes) -> None:
    written, _, _ = printed(said + b"\n", as_json=True)
    (found,) = map(json.loads, written.splitlines())
    assert found["line"] == said.decode(errors="backslashreplace")
    assert found["level"] == "info"


def test_an_object_that_a_worker_prints_keeps_its_fields_to_the_letter() -> None:
    own = b'{"time": "09:30", "big": 123456789012345678901234567890.10, "s": "\xc3\xa9"}'
    written, tail, sink = printed(
        own + b'\n{"worker": 7, "stream": [1], "a": {"b": null}}\n', as_json=True
    )
    first, second = map(json.loads, written.splitlines())
    assert first["worker"] == "web@1.1"
    assert (first["time"], first["s"]) == ("09:30", "\xe9")
    assert b'"big":123456789012345678901234567890.10' in written
    assert {key: value for key, value in second.items() if key not in ("time", "worker")} == {
        "own_worker": 7,
        "own_stream": [1],
        "a": {"b": None},
    }
    assert second["worker"] == "web@1.1"
    assert "line" not in first
    assert tail[0] == sink.ring.since(0, "")[0].message == own.decode()  # as it was printed


def test_the_last_lines_are_kept_for_the_verdict() -> None:
    _, tail, _ = printed(b"".join(b"line %d\n" % n for n in range(30)))
    assert tail == tuple(f"line {n}" for n in range(30 - TAIL_LINES, 30))


def test_a_line_without_its_end_is_among_the_last_words_of_a_worker_that_hangs() -> None:
    async def scenario(sink: Sink) -> list[tuple[str, ...]]:
        output = Output("web@1.1", sink, asyncio.get_running_loop())
        os.write(output.writer, b"asked\nEnter PEM pass phrase:")
        said = [output.last_words("it hangs").lines]
        os.write(output.writer, b" well\n")
        said.append(output.last_words("it hangs").lines)
        output.spawned()
        output.close()
        return said

    with pipe() as (_, write):
        said = asyncio.run(scenario(Sink(write)))
    assert said == [("asked", "Enter PEM pass phrase:"), ("asked", "Enter PEM pass phrase: well")]


def test_the_end_of_a_stream_without_a_newline_is_not_lost() -> None:
    async def scenario(sink: Sink) -> tuple[str, ...]:
        output = Output("web@1.1", sink, asyncio.get_running_loop())
        os.write(output.writer, b"bye")
        output.spawned()  # nobody else has it: the worker has closed its own, and lives on
        while True:
            await asyncio.sleep(0)
            if output.fileno() < 0:
                return output.tail

    with pipe() as (read, write):
        assert asyncio.run(scenario(Sink(write))) == ("bye",)
        assert take_all(read) == b"web@1.1 | bye\n"


def test_who_makes_way_for_the_next_manager_passes_on_what_it_has_read() -> None:
    """The next one reads on in the same pipe; what it has not read is still there."""

    async def scenario(sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        output = Output("web@1.1", sink, loop)
        os.write(output.writer, b"line\n" * 150 + b"half")
        output.catch_up()
        output.leave()
        os.write(output.writer, b" a line\n")
        loop.remove_reader(output.fileno())
        output.spawned()
        Output("web@1.1", sink, loop, found=os.dup(output.fileno())).close()
        output.close()

    with tempfile.TemporaryFile() as file:
        asyncio.run(scenario(Sink(file.fileno())))
        file.seek(0)
        lines = file.read().splitlines()
    assert lines == [b"web@1.1 | line"] * 150 + [b"web@1.1 \\ half", b"web@1.1 |  a line"]


def test_a_worker_that_prints_newlines_leaves_every_turn_of_the_loop_to_others() -> None:
    async def scenario(sink: Counting) -> list[int]:
        output = Output("web@1.1", sink, asyncio.get_running_loop())
        os.set_blocking(output.writer, False)
        flood = os.write(output.writer, b"\n" * 65536)
        turns = []
        while sum(turns) < flood:
            before = sink.passed
            await asyncio.sleep(0)  # one turn
            turns.append(sink.passed - before)
        output.spawned()
        output.close()
        return turns

    with tempfile.TemporaryFile() as file:
        sink = Counting(file.fileno())
        turns = asyncio.run(scenario(sink))
    assert max(turns) <= 100
    assert sink.writes <= len(turns)


class Clock:
    """The loop of an Output, whose turns are taken by hand: `due` is what it waits for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: Callable[[], None] | None = None
        self.pauses: list[float] = []
        self.later: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, read: Callable[[], None]) -> None:
        del fd
        self.due = read

    def remove_reader(self, fd: int) -> None:
        del fd
        self.due = None

    def call_later(self, delay: float, read: Callable[[], None]) -> None:
        self.pauses.append(delay)
        self.due = read

    def call_soon(self, go_on: Callable[[], None]) -> None:
        self.later.append(go_on)

    def turn(self, after: float) -> None:
        """Let it look, and pass on all that it has found."""
        self.now += after
        assert self.due
        self.due()
        while self.later:
            self.later.pop()()


def test_lines_that_come_one_by_one_are_taken_together_and_one_alone_is_taken_at_once() -> None:
    clock: Any = Clock()
    with tempfile.TemporaryFile() as file:
        sink = Counting(file.fileno())
        output = Output("web@1.1", sink, clock)
        for number, (after, said, pauses) in enumerate([
            (1.0, b"a\n", 0), (1.0, b"b\n", 0),  # seldom: each wakes us
            (0.001, b"c\n", 1), (0.005, b"d\ne\nf\n", 2), (0.005, b"", 2),  # often
            (1.0, b"g\n", 2), (0.001, b"h\n" * (FEW // 2), 2),  # and so many that we are late
        ]):  # fmt: skip
            os.write(output.writer, said)
            clock.turn(after)
            assert len(clock.pauses) == pauses, number
        assert sink.passed == 7 + FEW // 2
        os.write(output.writer, b"i\n")
        clock.turn(0.001)
        assert len(clock.pauses) == 3
        in_pause = clock.due
        output.close()
        in_pause()  # its end comes after that of the worker
        output.spawned()


class Counting(Sink):
    """Counts lines, and the writes that they take."""

    passed = writes = 0

    def lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        self.passed += len(pieces)
        super().lines(worker, pieces, stream)

    def write(self, text: str) -> None:
        self.writes += 1
        super().write(text)


@pytest.mark.parametrize("as_json", [False, True])
def test_after_a_full_log_the_log_says_how_many_lines_are_missing(
    tmp_path: Path, as_json: bool
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        sink = Sink(file.fileno(), JSON if as_json else Logs())
        sink.lines("web@1.1", [Piece("first")])
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # As a full disk does it: what still fits is written, then nothing.
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.tell() + 5, before[1]))
        try:
            for n in range(40):
                sink.lines("web@1.1", [Piece(f"lost {n}")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sink.lines("web@1.1", [Piece("last")])
    lines = log.read_text().splitlines()
    assert len(lines) == 4  # the second is torn
    assert "last" in lines[3]
    if as_json:
        assert json.loads(lines[2])["number"] == 40
    else:
        assert lines[2].startswith("40 lines are missing here")


def test_a_terminal_is_not_at_the_mercy_of_what_workers_print() -> None:
    main, side = pty.openpty()
    attributes = termios.tcgetattr(side)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(side, termios.TCSANOW, attributes)
    sink = Sink(side)
    sink.lines("web@1.1", [Piece("\x1b]0;mine\x07 \x1b[32mok\x1b[0m lie\rtruth")])
    Sink(side).show_record(logging.makeLogRecord({"levelname": "INFO", "msg": "x\x1b[2J"}))
    said = b""
    while said.count(b"\n") < 2:
        said += os.read(main, 4096)
    os.close(main)
    os.close(side)
    shown, record = said.decode().splitlines()
    assert shown == "web@1.1 | \\x1b]0;mine\\x07 \x1b[32mok\x1b[0m lie\\rtruth\x1b[0m"
    assert record.endswith("x\\x1b[2J")


def test_with_json_every_line_is_an_object() -> None:
    with pipe() as (read, write):
        sink = Sink(write, JSON)
        handler = RecordHandler(sink)
        logger = logging.getLogger("sockmgr.test.output")
        logger.addHandler(handler)
        logger.propagate = False
        Log("sockmgr.test.output").warning(
            EventKind.WORKER_ENDED,
            worker="web@1.1",
            was=State.READY,
            how=Ending(status=-9),
            a=0.5,
        )
        logger.removeHandler(handler)
        record = json.loads(take_all(read))
        before = time.time()
        sink.lines("web@1.1", [Piece('says "hello"'), Piece("x", partial=True)])
        line, partial = map(json.loads, take_all(read).splitlines())
    assert record.pop("time") <= before
    assert record == {"level": "warning", "message": "worker ended", "worker": "web@1.1",
                      "was": "ready", "how": "was killed by signal 9 (KILL)", "a": 0.5}  # fmt: skip
    assert before <= line.pop("time") <= time.time()
    assert line == {"level": "info", "worker": "web@1.1", "line": 'says "hello"'}
    assert partial["partial"] is True
