"""Writes lines to stderr or stdout without blocking; keeps the newest for `sockmgr logs`."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import stat
import time
from collections.abc import Callable, Sequence

import msgspec

from sockmgr.api.records import EventKind, event, service_of, subject
from sockmgr.api.types import JournalPlace, LogLine
from sockmgr.api.wire import UNREADABLE
from sockmgr.config.manager_keys import Format, Logs
from sockmgr.log import Occurrence
from sockmgr.manager.logs.ring import Ring
from sockmgr.terminal.pieces import Piece, readable
from sockmgr.terminal.visible import visible

DEFAULT = Logs()
_OURS = ("worker", "stream")  # fields of every line in JSON
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
PENDING_MAX = 65536  # bytes not yet taken from us before workers have to wait
RECORDS_MAX = 4 * PENDING_MAX  # beyond it our own records are dropped, and only counted


class Sink:
    """The manager's stderr (borrowed): a bounded buffer in front of it, flushed as it drains.

    `place` is the journal that has the lines, if our `ring` does not have them. `stdout` is where
    lines go that a worker prints there, which is the sink itself unless `logs` have it apart.
    """

    place: JournalPlace | None = None

    def __init__(self, fd: int = 2, logs: Logs = DEFAULT, ring: Ring | None = None) -> None:
        self._fd, self.logs, self._as_json = fd, logs, logs.format is Format.JSON
        self._is_terminal = os.isatty(fd)
        self.ring = ring or Ring()
        # If both are one file, two buffers in front of it would tear each other's lines.
        is_apart = logs.split and ring is None and not os.path.sameopenfile(1, fd)
        self.stdout = Sink(1, logs, self.ring) if is_apart else self
        self._pending = bytearray()
        self._dropped = 0
        self._failed = False  # the last write
        self._torn = False  # the last write ended in the middle of a line
        self._write = _write_to_pipe if stat.S_ISFIFO(os.fstat(fd).st_mode) else os.write
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Callable[[], None]] = []

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use `loop` to learn when stderr takes more bytes."""
        self._loop = loop
        if self.stdout is not self:
            self.stdout.attach(loop)

    @property
    def pending(self) -> int:
        """How many bytes stderr has not taken yet."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether the pipes of the workers are not read for now, so that workers wait."""
        return self.pending > PENDING_MAX

    def record(self, record: logging.LogRecord) -> None:
        """Take one of the manager's own records."""
        self.ring.add(_logged(record))
        self.show_record(record)

    def show_record(self, record: logging.LogRecord) -> None:
        # An error has several lines, and each needs its level for whoever reads by grep.
        if not self._as_json:
            when = time.strftime("%H:%M:%S", time.localtime(record.created))
            for line in record.getMessage().split("\n"):
                self.write(f"{record.levelname[0]} {when} {self.clean(line)}\n")
            return
        happened = _occurrence(record)
        about = {"time": record.created, "level": record.levelname.lower()}
        self.write(_as_json({**about, "message": happened.kind, **happened.fields}))

    def lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        """Take what a worker wrote, to `stream` if that is known."""
        now, service = time.time(), service_of(worker)
        for piece in pieces:
            line = LogLine(
                time=now, level="info", source=worker, service=service, event="",
                message=readable(piece.text), partial=piece.partial or None,
            )  # fmt: skip
            self.ring.add(line)
        self.show_lines(worker, pieces, stream)

    def show_lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        shown = self._object if self._as_json else self._line
        self.write("".join(shown(worker, piece, stream) for piece in pieces))

    def clean(self, text: str) -> str:
        """Return a line of a worker or a library in a form that is safe for a terminal."""
        return visible(text) if self._is_terminal else text

    def write(self, text: str) -> None:
        """Write whole lines, at once or as soon as stderr takes them."""
        # Workers wait while the buffer is full. The manager must not, so its records are dropped.
        if len(self._pending) > RECORDS_MAX or (self._failed and not self._works_again()):
            self._dropped += text.count("\n")
            return
        self._pending += _encoded(text)
        self.flush()

    def resume(self, read_on: Callable[[], None]) -> None:
        """Call `read_on` once the buffer has room."""
        self._waiting.append(read_on)

    def flush(self) -> None:
        """Write as much as stderr takes without blocking."""
        self._give()
        self._settle()

    def close(self, patience: float = 1.0) -> None:
        """Wait up to `patience` seconds for the reader of stderr to take the rest."""
        if self.stdout is not self:
            self.stdout.close(patience)
        # A blocking wait: the process is about to end, and its last lines say why.
        while self.pending and self._poll.poll(patience * 1000):
            before = self.pending
            self.flush()
            if self.pending == before:
                break
        self._give_up()
        self._settle()

    def _give(self) -> None:
        while self._pending and self._poll.poll(0):
            # A pipe that polls writable takes PIPE_BUF bytes at once (pipe(7)).
            try:
                written = self._write(self._fd, self._pending[: select.PIPE_BUF])
            except BlockingIOError:
                break
            except OSError:  # stderr has no reader, or its disk is full: the manager goes on
                self._dropped += self._pending.count(b"\n")
                self._pending.clear()
                self._failed = True
                break
            self._torn = self._pending[written - 1] != ord("\n")
            del self._pending[:written]

    def _line(self, worker: str, piece: Piece, _: str) -> str:
        return f"{prefix(worker, piece)} {self.clean(piece.text)}\n"

    def _object(self, worker: str, piece: Piece, stream: str) -> str:
        told: dict[str, object] = {"time": time.time(), "worker": worker}
        told |= {"stream": stream} if stream else {}
        if own := _own_object(piece):
            # What it says of itself counts, but not of whose line this is.
            told |= {f"own_{key}" if key in _OURS else key: own[key] for key in own}
        else:
            told |= {"level": "info", "line": readable(piece.text)}
            told |= {"partial": True} if piece.partial else {}
        return _encode(told).decode() + "\n"

    def _give_up(self) -> None:
        self._pending.clear()

    def _works_again(self) -> bool:
        """Try to write after a failure: first a note that lines are missing."""
        # A disk that was full may have taken half of our last line.
        note = _encoded("\n" * self._torn + self._dropped_note())
        try:
            written = os.write(self._fd, note)
        except OSError:
            return False
        self._failed, self._dropped = False, 0
        self._pending += note[written:]
        return True

    def _dropped_note(self) -> str:
        text = f"{self._dropped} lines are missing here: they could not be written to stderr"
        if not self._as_json:
            return f"{text}\n"
        told = {"time": time.time(), "level": "warning", "message": EventKind.RECORDS_DROPPED}
        return _as_json({**told, "number": self._dropped})

    def _report_dropped(self) -> None:
        note, self._dropped = self._dropped_note(), 0
        self.write(note)

    def _settle(self) -> None:
        if self._loop is None:  # the next record, or the loop's beginning, tries again
            return
        if self.pending:
            # Regular files are always ready and unknown to epoll (EPERM); they never get here.
            self._loop.add_writer(self._fd, self.flush)
            return
        self._loop.remove_writer(self._fd)
        # Only when all is written is there room to say how many lines are missing.
        if self._dropped and not self._failed:
            self._report_dropped()
        # The callers are taken out first: one that fills the buffer will be waiting again.
        waiting, self._waiting = self._waiting, []
        for read_on in waiting:
            read_on()


def _write_to_pipe(fd: int, data: bytes | bytearray) -> int:
    """Write without waiting, though others who have the pipe may fill it after poll(2)."""
    try:
        return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)
    except OSError as error:  # Linux before 6.4 does not know it of pipes
        if error.errno != errno.EOPNOTSUPP:
            raise
        return os.write(fd, data)


def _logged(record: logging.LogRecord) -> LogLine:
    happened = _occurrence(record)
    return LogLine(
        time=record.created, level=record.levelname.lower(), source="sockmgr",
        service=subject(happened.fields), message=record.getMessage(),
        event=event(happened.kind) if happened is record.msg else "",
    )  # fmt: skip


def _occurrence(record: logging.LogRecord) -> Occurrence:
    """Return the occurrence that was logged; a library's record is a text without fields."""
    return record.msg if isinstance(record.msg, Occurrence) else Occurrence(record.getMessage(), {})


def prefix(source: str, piece: Piece) -> str:
    r"""Return what stands before a piece: `web@1.1 |`, or `web@1.1 \` if its line goes on."""
    mark = "\\" if piece.partial else "|"
    return f"{source} {mark}"


def _encoded(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")  # what a worker wrote, byte for byte
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace")


def _as_json(told: dict[str, object]) -> str:
    return json.dumps(told, default=str) + "\n"


def _own_object(piece: Piece) -> dict[str, msgspec.Raw] | None:
    """Return the fields of the JSON object that a line is, each as it is written there."""
    if piece.partial or not piece.text.startswith("{"):
        return None
    try:
        return _decode(piece.text)
    except UNREADABLE:  # it is none
        return None


class RecordHandler(logging.Handler):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.record(record)
