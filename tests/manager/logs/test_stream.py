"""A worker's stream to the journal, as far as it goes without a journald: nobody waits for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from sockmgr.api.types import JournalPlace
from sockmgr.config.manager_keys import Format, Logs
from sockmgr.manager.logs.journal import Stream, worker_output
from sockmgr.manager.logs.output import LastWords, Output
from sockmgr.manager.logs.sink import Sink
from sockmgr.systemd import journald

PLACE = JournalPlace(unit="shop.service")


@contextmanager
def stream() -> Iterator[tuple[Stream, socket.socket]]:
    """Yield a stream and journald's end of it."""
    ours, journalds = socket.socketpair()
    with journalds:
        found = Stream("web@1.1", ours.detach(), PLACE)
        try:
            yield found, journalds
        finally:
            found.close()


def within_a_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(main())


def test_what_the_worker_wrote_is_read_before_our_line_so_it_is_whole() -> None:
    async def scenario() -> None:
        with stream() as (output, journalds):
            os.write(output.writer, b"hello\n")
            assert not output.has_been_read()
            output.ended("exited with status 0")
            assert journalds.recv(4096) == b"hello\nended: exited with status 0\n"
            assert output.has_been_read()

    within_a_loop(scenario)


def test_a_stream_that_is_full_or_gone_is_not_waited_for_and_a_verdict_says_where_to_look() -> None:
    async def scenario() -> None:
        for fate in ("full", "gone"):
            with stream() as (output, journalds):
                if fate == "gone":
                    journalds.close()
                os.set_blocking(output.writer, False)
                while fate == "full" and journald.say(output.writer, "x" * 4000):
                    pass
                os.set_blocking(output.writer, True)  # as workers have it
                output.ended("exited with status 1")
                words = await output.last_words("").all()
                assert words.place == PLACE
                (line,) = words.lines
                assert "journalctl --unit=shop.service --identifier=web@1.1" in line

    within_a_loop(scenario)


def test_a_manager_that_may_not_read_the_journal_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journald, "PLACES", ())

    async def scenario() -> None:
        with stream() as (output, _):
            output.ended("exited with status 1")
            words = await output.last_words("").plus("and what was seen").all()
            where, seen = words.lines
            assert "--identifier=web@1.1" in where
            assert seen == "and what was seen"

    within_a_loop(scenario)


def test_words_that_have_to_be_asked_for_come_before_those_that_are_known() -> None:
    async def asked() -> LastWords:
        return LastWords(lines=("one", "two"))

    words = LastWords(before=asked).plus("three")
    assert asyncio.run(words.all()).lines == ("one", "two", "three")
    assert asyncio.run(LastWords(lines=("known",)).all()).lines == ("known",)


def test_what_another_manager_left_is_told_apart_a_pipe_a_stream_or_nothing() -> None:
    async def scenario() -> None:
        loop, sink = asyncio.get_running_loop(), Sink()
        read, write = os.pipe()
        os.write(write, b"hello\n")
        os.close(write)
        pipe = worker_output(sink, loop, "web@1.1", (read, -1))
        assert await pipe.last_words("").all() == LastWords(lines=("hello",))
        pipe.close()
        ours, journalds = socket.socketpair()
        found = worker_output(sink, loop, "web@1.1", (ours.detach(), -1))
        assert isinstance(found, Stream)
        found.close()
        journalds.close()
        nothing = worker_output(sink, loop, "web@1.1", (-1, -1))
        assert isinstance(nothing, Output)
        assert nothing.fileno() == -1
        nothing.close()
        sink.place = PLACE  # it has a stream, of which no copy was left
        lost = worker_output(sink, loop, "web@1.1", (-1, -1))
        lost.ended("exited with status 1")
        assert (await lost.last_words("").all()).place == PLACE
        assert lost.fileno() == -1
        assert lost.has_been_read()
        lost.close()

    within_a_loop(scenario)


@pytest.mark.parametrize(
    ("logs", "pipes"),
    [
        (Logs(split=True), 2),
        (Logs(format=Format.JSON), 2),
        (Logs(format=Format.RAW), 0),
        (Logs(), 1),
    ],
)
def test_a_worker_that_is_adopted_goes_on_as_it_was_whatever_others_get(
    logs: Logs, pipes: int
) -> None:
    async def scenario() -> None:
        loop, sink = asyncio.get_running_loop(), Sink(logs=logs)
        fresh = worker_output(sink, loop, "web@1.1")
        assert len({*fresh.ends} - {1, 2}) == pipes
        assert (fresh.stdout is not None) == (pipes == 2)
        fresh.spawned()
        fresh.close()
        ends = [os.pipe() for _ in range(2)]
        for (_, write), said in zip(ends, (b"err\n", b"out\n"), strict=True):
            os.write(write, said)
            os.close(write)
        two = worker_output(sink, loop, "web@1.1", tuple(read for read, _ in ends))
        assert two.stdout
        assert (two.fileno(), two.stdout.fileno()) == tuple(read for read, _ in ends)
        assert two.last_words("").lines == ("out", "err")
        two.close()
        one, write = os.pipe()
        found = worker_output(sink, loop, "web@1.1", (one, -1))
        assert isinstance(found, Output)
        os.close(write)
        found.close()
        none = worker_output(sink, loop, "web@1.1", (-1, -1))
        assert none.fileno() == -1
        none.close()

    within_a_loop(scenario)


def test_without_the_journal_a_worker_has_a_pipe() -> None:
    async def scenario() -> None:
        output = worker_output(Sink(), asyncio.get_running_loop(), "web@1.1")
        assert isinstance(output, Output)
        assert "JOURNAL_STREAM" not in output.environment
        output.spawned()
        output.close()

    within_a_loop(scenario)
