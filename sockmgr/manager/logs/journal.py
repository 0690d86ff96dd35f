"""Writes records to systemd's journal in place of stderr, and lets workers write to it directly.

If stderr is connected to the journal, no line that a worker prints passes through the manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from sockmgr.api.records import IDENTIFIER, PRIORITIES, EventKind, encode, entry, line_of
from sockmgr.api.types import JournalPlace
from sockmgr.config.manager_keys import Format, Logs
from sockmgr.kernel.cgroup import own_unit
from sockmgr.log import Log, Occurrence
from sockmgr.manager.logs.output import TAIL_LINES, LastWords, Output, WorkerOutput, apart, direct
from sockmgr.manager.logs.sink import RECORDS_MAX, Sink
from sockmgr.systemd import journald, protocol
from sockmgr.terminal.pieces import Piece

RECALL_TIMEOUT = 1.0  # seconds that a verdict waits for lines to appear in the journal

log = Log("sockmgr")


def open_sink(logs: Logs) -> tuple[Sink, str]:
    """Return the sink of our records, and, if the journal should be it but cannot be, the reason.

    Any `logs` but the default are a wish about stdout and stderr: then the journal is not used.
    """
    unit = own_unit()
    if logs != Logs() or unit is None or not journald.is_stderr():
        return Sink(logs=logs), ""
    # Whatever is wrong with the journal: a manager that logs to stderr is better than none.
    try:
        entries = journald.Entries()
    except OSError as error:
        return Sink(), f"{journald.SOCKET}: {error.strerror}"
    user = os.getuid() if unit.of_user else None
    return JournalSink(entries, JournalPlace(unit=unit.name, user=user)), ""


class JournalSink(Sink):
    """Sends entries to journald, and keeps a bounded number of bytes until journald takes more."""

    def __init__(self, entries: journald.Entries, place: JournalPlace) -> None:
        """Own `entries`; `place` is where a client can read them."""
        super().__init__(entries.fileno())
        self.place = place
        self._entries = entries
        self._waiting_entries: deque[bytes] = deque()
        self._size = 0
        self._gone = False

    @property
    def pending(self) -> int:
        """How many bytes journald has not taken yet."""
        return self._size

    def record(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        if isinstance(record.msg, Occurrence):
            self._put(entry(record.msg, level))
        else:
            self._put(_foreign(record.getMessage(), level))

    def lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        """Send lines of a worker that has a pipe nevertheless."""
        del stream
        for piece in pieces:
            self._put(line_of(worker, piece))

    def write(self, text: str) -> None:
        """Send lines that are not of a worker."""
        self._put(_foreign(text.rstrip("\n"), "info"))

    def _put(self, fields: Mapping[str, str]) -> None:
        if self._size > RECORDS_MAX:
            self._dropped += 1
            return
        data = encode(fields)
        self._waiting_entries.append(data)
        self._size += len(data)
        self.flush()

    def _give(self) -> None:
        while self._waiting_entries:
            try:
                if not self._entries.send(self._waiting_entries[0]):
                    return  # its buffer is full: flush() comes again when it can take more
                self._gone = False
            except OSError:  # there is no journald for the moment, or it will never take this one
                self._gone = True
                self._dropped += 1
            self._size -= len(self._waiting_entries.popleft())

    def _give_up(self) -> None:
        self._waiting_entries.clear()
        self._size = 0

    def _report_dropped(self) -> None:
        if not self._gone:  # otherwise with the next entry that journald takes
            dropped, self._dropped = self._dropped, 0
            log.warning(EventKind.RECORDS_DROPPED, number=dropped)


def _foreign(text: str, level: str) -> dict[str, str]:
    """Return the fields of a record of a library."""
    priority = str(PRIORITIES.get(level, 6))
    return {"MESSAGE": text, "PRIORITY": priority, "SYSLOG_IDENTIFIER": IDENTIFIER}


# --- Workers -------------------------------------------------------------------------------------


def worker_output(
    sink: Sink, loop: asyncio.AbstractEventLoop, name: str, found: tuple[int, ...] = ()
) -> WorkerOutput:
    """Return a new output for a worker, or one that owns the fds `found` (-1: there is none).

    It is a stream to the journal if our own records go there, else what `sink.logs` says.
    """
    place = sink.place
    # An adopted worker goes on writing where it did, whatever a new one would be given today.
    if found:
        output, stdout = found
        if stdout >= 0:
            return apart(name, sink, sink.stdout, loop, output, stdout)
        is_stream = stat.S_ISSOCK(os.fstat(output).st_mode) if output >= 0 else place is not None
        return Stream(name, output, place) if is_stream else Output(name, sink, loop, output)
    if sink.logs.format is Format.RAW:
        return direct(name, sink, loop)
    if sink.logs.split or sink.logs.format is Format.JSON:
        return apart(name, sink, sink.stdout, loop)
    if place is not None:
        try:
            # One stream a worker: its identifier is what `journalctl --identifier=` selects.
            return Stream(name, protocol.open_stream(name), place)
        except OSError as error:
            log.warning(EventKind.JOURNAL_STREAM_NOT_OPENED, worker=name, error=error)
    return Output(name, sink, loop)


class Stream:
    """The stream of a worker to the journal. Owns a copy of it, to write the last line there.

    Within one stream journald keeps the order, so all that the worker printed is before our line.
    """

    def __init__(self, name: str, fd: int, place: JournalPlace | None) -> None:
        """Own `fd`, a copy of the stream that the worker has or will have; -1 if there is none."""
        self.writer, self.ends = fd, (fd, fd)
        self.stdout: Output | None = None
        own = {"JOURNAL_STREAM": journald.name_of(fd)} if fd >= 0 else {}
        self.environment: Mapping[str, str] = own
        self._name, self._place = name, place
        self._words: LastWords | None = None

    def spawned(self) -> None:
        """Keep our copy."""

    def fileno(self) -> int:
        return self.writer

    def last_words(self, why: str) -> LastWords:
        """Return what the worker has printed until now, and write `why` to its stream."""
        return self._words or self._until(why)

    def ended(self, how: str) -> None:
        """Write how the worker has ended to its stream."""
        self._words = self._until(f"ended: {how}")

    def has_been_read(self) -> bool:
        """Return whether journald has read our last line, and so all lines of the worker.

        journald looks up a process when it reads its lines: until then the worker must not be
        reaped. Our line is read last and apart, because we are another process.
        """
        return self.writer < 0 or journald.has_been_read(self.writer)

    def leave(self) -> None:
        """Do nothing: no output passes through us."""

    def close(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def _until(self, said: str) -> LastWords:
        # Our line has this time or a later one; an older line with the same text is another's.
        at = asyncio.get_running_loop().time()
        if self.writer < 0 or not journald.say(self.writer, said):
            return _elsewhere(self._name, self._place)
        recall = functools.partial(
            journald.lines_before, said, self._name,
            at=at, number=TAIL_LINES, timeout=RECALL_TIMEOUT,
        )  # fmt: skip
        return LastWords(before=functools.partial(_recalled, recall, self._name, self._place))


async def _recalled(
    recall: Callable[[], list[str] | None], name: str, place: JournalPlace | None
) -> LastWords:
    """Return what `recall` finds in a thread of its own; a late result is not waited for."""
    if not journald.is_readable():
        return _elsewhere(name, place)
    found: asyncio.Future[list[str] | None] = asyncio.get_running_loop().create_future()
    # To read the journal is to read files, which may take long. The thread is a daemon: a disk that
    # hangs must not keep the manager from ending.
    reader = threading.Thread(
        target=_recall_into, args=(found, recall), name="journal", daemon=True
    )
    try:
        reader.start()
    except RuntimeError:  # the limit of threads is reached
        return _elsewhere(name, place)
    await asyncio.wait({found}, timeout=RECALL_TIMEOUT)
    lines = found.result() if found.done() else None
    if lines is None:
        return _elsewhere(name, place)
    return LastWords(lines=tuple(lines))


def _recall_into(
    found: asyncio.Future[list[str] | None], recall: Callable[[], list[str] | None]
) -> None:
    """Have the loop of `found` give it what `recall` returns; runs in a thread of its own."""

    def give(lines: list[str] | None) -> None:
        if not found.done():  # nobody waits for it any more
            found.set_result(lines)

    try:
        lines = recall()
    except OSError:
        lines = None
    with contextlib.suppress(RuntimeError):  # the loop has ended before us
        found.get_loop().call_soon_threadsafe(give, lines)


def _elsewhere(name: str, place: JournalPlace | None) -> LastWords:
    """Return one line that says where the lines of the worker are."""
    option = "" if place is None else f"--{'user-' * (place.user is not None)}unit={place.unit} "
    where = f"what it printed is in the journal: journalctl {option}--identifier={name}"
    return LastWords(lines=(where,), place=place)
