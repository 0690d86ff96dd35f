"""The manager's records in the journal: whole, never waited for, and counted if they are lost."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sockmgr.api.types import JournalPlace
from sockmgr.log import Log
from sockmgr.manager.logs.journal import JournalSink
from sockmgr.manager.logs.output import Output
from sockmgr.manager.logs.sink import RECORDS_MAX, RecordHandler
from sockmgr.systemd import journald
from tests.helpers.entries import decode

PLACE = JournalPlace(unit="shop.service")


class Journald:
    """Reads entries, when the test says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def read(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(decode(self._socket.recv(2**20)))
            except BlockingIOError:
                return found

    def stop(self) -> None:
        self._socket.close()
        self._path.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def daemon(path: Path) -> Iterator[Journald]:
    found = Journald(path)
    yield found
    found.stop()


@contextmanager
def logging_to(sink: JournalSink) -> Iterator[Log]:
    logger, handler = logging.getLogger("sockmgr"), RecordHandler(sink)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield Log("sockmgr")
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


@contextmanager
def connected(path: Path) -> Iterator[tuple[JournalSink, Log]]:
    entries = journald.Entries(str(path))
    sink = JournalSink(entries, PLACE)
    with logging_to(sink) as log:
        yield sink, log
    entries.close()


def test_a_record_is_an_entry_with_its_fields(daemon: Journald, path: Path) -> None:
    with connected(path) as (_, log):
        log.warning("worker killed", worker="web@1.1", why="too\nlate")
    (entry,) = daemon.read()
    assert entry["MESSAGE"] == "worker killed worker=web@1.1 why='too\\nlate'"
    assert (entry["PRIORITY"], entry["SOCKMGR_EVENT"]) == ("4", "worker-killed")
    assert (entry["SOCKMGR_GENERATION"], entry["SOCKMGR_WHY"]) == ("1", "too\nlate")


def test_a_record_of_somebody_else_is_an_entry_without_an_event(
    daemon: Journald, path: Path
) -> None:
    with connected(path) as (sink, _):
        sink.record(logging.makeLogRecord({"msg": "slow callback", "levelname": "WARNING"}))
    assert daemon.read() == [
        {"MESSAGE": "slow callback", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "sockmgr"}
    ]


def test_what_comes_through_a_pipe_is_told_under_the_name_of_its_worker(
    daemon: Journald, path: Path
) -> None:
    async def scenario(sink: JournalSink) -> None:
        output = Output("web@1.1 ready?", sink, asyncio.get_running_loop())
        os.write(output.writer, b"not yet\n")
        output.spawned()
        output.close()

    with connected(path) as (sink, _):
        asyncio.run(scenario(sink))
    (entry,) = daemon.read()
    assert (entry["MESSAGE"], entry["SYSLOG_IDENTIFIER"]) == ("not yet", "web@1.1 ready?")
    assert entry["SOCKMGR_WORKER"] == "web@1.1"


def test_a_journald_that_hangs_is_not_waited_for_and_what_it_missed_is_counted(
    daemon: Journald, path: Path
) -> None:
    async def scenario(sink: JournalSink, log: Log) -> list[dict[str, str]]:
        sink.attach(asyncio.get_running_loop())
        for number in range(5000):
            log.info("signal", received=f"{number} {'x' * 200}")
        assert sink.full
        assert sink.pending <= RECORDS_MAX + 1000
        entries: list[dict[str, str]] = []
        while not entries or entries[-1]["SOCKMGR_EVENT"] != "records-dropped":
            entries += daemon.read()
            await asyncio.sleep(0)
        return entries

    with connected(path) as (sink, log):
        *entries, last = asyncio.run(scenario(sink, log))
    assert [int(entry["SOCKMGR_RECEIVED"].split()[0]) for entry in entries] == [
        *range(len(entries))
    ]
    assert len(entries) + int(last["SOCKMGR_NUMBER"]) == 5000


def test_a_journald_that_is_not_there_is_told_later_how_many_records_were_lost(path: Path) -> None:
    async def scenario() -> list[dict[str, str]]:
        before = Journald(path)
        with connected(path) as (sink, log):
            sink.attach(asyncio.get_running_loop())
            log.info("stopping")
            assert len(before.read()) == 1
            before.stop()
            for _ in range(3):
                log.info("signal")
            after = Journald(path)
            log.info("stopped")
            found = after.read()
            after.stop()
        return found

    found = asyncio.run(scenario())
    assert [entry["SOCKMGR_EVENT"] for entry in found] == ["stopped", "records-dropped"]
    assert found[1]["SOCKMGR_NUMBER"] == "3"


def test_the_last_records_are_taken_at_the_end_if_somebody_takes_them(
    daemon: Journald, path: Path
) -> None:
    with connected(path) as (sink, log):
        while not sink.pending:
            log.info("signal")
        before = len(daemon.read())
        sink.close()
        assert sink.pending == 0
    assert before > 0
    assert len(daemon.read()) == 1


def test_without_a_journald_there_is_no_socket_to_own(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        journald.Entries(str(path))


def test_a_descriptor_goes_to_the_journal_if_the_environment_names_that_very_one() -> None:
    read, write = os.pipe()
    found = os.fstat(write)
    environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    assert journald.is_stderr(environ, write)
    assert not journald.is_stderr({}, write)
    with Path(os.devnull).open() as other:  # redirected since
        assert not journald.is_stderr(environ, other.fileno())
    os.close(read)
    os.close(write)
