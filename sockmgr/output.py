"""Where lines go: the manager's stderr, never blocking, and the pipe that each worker writes to.

The last lines of all are kept for `sockmgr logs`, those of each worker for the verdict. When
nobody takes what we write to stderr, the pipes are not read, so a worker waits exactly as it would
with that stderr of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import select
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sockmgr.core.errors import SpawnError
from sockmgr.core.events import event, service_of, subject
from sockmgr.core.report import JournalPlace, LogLine
from sockmgr.ring import Ring

CHUNK = 65536
LINE_MAX = 4096
PENDING_MAX = 65536  # bytes not yet taken from us before workers have to wait
RECORDS_MAX = 4 * PENDING_MAX  # our own records may go this far, then they are counted only
TAIL_LINES = 20


class Sink:
    """The manager's stderr (borrowed): a bounded buffer in front of it, flushed as it drains.

    `place` is where the lines can be read if it is not our `ring` that has them.
    """

    place: JournalPlace | None = None

    def __init__(self, fd: int = 2, *, as_json: bool = False) -> None:
        self._fd, self._as_json = fd, as_json
        self.ring = Ring()
        self._pending = bytearray()
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[Output, None] = {}

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use `loop` to hear when stderr takes more."""
        self._loop = loop

    @property
    def pending(self) -> int:
        """How many bytes nobody has taken yet."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether workers have to wait."""
        return self.pending > PENDING_MAX

    def record(self, record: logging.LogRecord) -> None:
        """Take one of the manager's own records."""
        self.ring.add(_logged(record, record.getMessage()))
        self.show_record(record)

    def show_record(self, record: logging.LogRecord) -> None:
        """Write one of the manager's own records."""
        text = record.getMessage()
        if not self._as_json:
            when = time.strftime("%H:%M:%S", time.localtime(record.created))
            self.write(f"{record.levelname[0]} {when} {text}\n")
            return
        told = _told(record, text)
        self.write(_as_json({"time": record.created, "level": record.levelname.lower(), **told}))

    def line(self, worker: str, text: str) -> None:
        """Take one line that a worker wrote."""
        line = LogLine(
            time=time.time(),
            level="info",
            source=worker,
            service=service_of(worker),
            event="",
            message=text,
        )
        self.ring.add(line)
        self.show_line(worker, text)

    def show_line(self, worker: str, text: str) -> None:
        """Write one line that a worker wrote."""
        self.write(
            _as_json({"worker": worker, "line": text}) if self._as_json else f"{worker} | {text}\n"
        )

    def write(self, text: str) -> None:
        """Write whole lines, now or when stderr takes them."""
        if len(self._pending) > RECORDS_MAX:
            self._dropped += 1
            return
        self._pending += text.encode(errors="replace")
        self.flush()

    def resume(self, output: Output) -> None:
        """Let `output` read on once there is room."""
        self._waiting[output] = None

    def flush(self) -> None:
        """Write what is taken without blocking."""
        self._give()
        self._settle()

    def close(self, patience: float = 1.0) -> None:
        """Give whoever reads a last chance of `patience` seconds to take what is left."""
        while self.pending and self._poll.poll(patience * 1000):
            before = self.pending
            self.flush()
            if self.pending == before:
                break
        self._give_up()
        self._settle()

    def _give(self) -> None:
        while self._pending and self._writable():
            # A pipe that polls writable takes PIPE_BUF bytes at once (pipe(7)).
            try:
                written = os.write(self._fd, self._pending[: select.PIPE_BUF])
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO, errno.ENOSPC):
                    raise
                self._pending.clear()  # nobody is there to read it
                break
            del self._pending[:written]

    def _give_up(self) -> None:
        self._pending.clear()

    def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self.write(f"{dropped} records were dropped: nobody took what was written to stderr\n")

    def _writable(self) -> bool:
        return bool(self._poll.poll(0))

    def _settle(self) -> None:
        if self._loop is None:
            return
        if self.pending:
            # Regular files are always ready and unknown to epoll (EPERM); they never get here.
            self._loop.add_writer(self._fd, self.flush)
            return
        self._loop.remove_writer(self._fd)
        if self._dropped:
            self._tell_dropped()
        waiting, self._waiting = self._waiting, {}
        for output in waiting:
            output.read_on()


def _logged(record: logging.LogRecord, text: str) -> LogLine:
    told = _told(record, text)
    return LogLine(
        time=record.created,
        level=record.levelname.lower(),
        source="sockmgr",
        service=subject(told),
        event=event(str(told["message"])) if hasattr(record, "told") else "",
        message=text,
    )


def _told(record: logging.LogRecord, text: str) -> dict[str, object]:
    """Return the constant message and the fields of one of our records."""
    told: dict[str, object] = getattr(record, "told", {"message": text})
    return told


def _as_json(told: dict[str, object]) -> str:
    return json.dumps(told, default=str) + "\n"


class RecordHandler(logging.Handler):
    """Sends the manager's own records into the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._sink.record(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a worker said last: lines, and some before them that must be asked for first.

    `place` is set if the first line stands for others, which only that journal has. `said_by` is
    who said it in the worker's stead.
    """

    lines: tuple[str, ...] = ()
    said_by: str = ""
    place: JournalPlace | None = None
    before: Callable[[], Awaitable[Words]] | None = None

    def plus(self, line: str) -> Words:
        """Return them with a line of our own at the end."""
        return replace(self, lines=(*self.lines, line))

    async def all(self) -> Words:
        """Return them with what had to be asked for."""
        if self.before is None:
            return self
        asked = await self.before()
        return replace(asked, lines=(*asked.lines, *self.lines))


class WorkerOutput(Protocol):
    """Where a worker's stdout and stderr go. `writer` is theirs, borrowed."""

    writer: int
    environment: Mapping[str, str]

    def spawned(self) -> None:
        """Let go of what only the worker needs: it has its own, or failed to start."""

    def fileno(self) -> int:
        """Return what the next manager needs to go on, borrowed; -1 if there is nothing."""

    def last_words(self, why: str) -> Words:
        """Return what the worker has said until now, when we look because of `why`."""

    def ended(self, how: str) -> None:
        """The worker has ended, and is not reaped yet."""

    def has_been_read(self) -> bool:
        """Tell whether it may be reaped, as far as its output is concerned."""

    def close(self) -> None:
        """Close it, when nothing more is to come."""


class Output:
    """The pipe one worker's stdout and stderr go to. Owns both ends until `spawned` and `close`."""

    def __init__(
        self, name: str, sink: Sink, loop: asyncio.AbstractEventLoop, found: int | None = None
    ) -> None:
        """Make a pipe, or own the end that is read of one that was `found` (-1: there is none).

        Raises SpawnError.
        """
        self._name, self._sink, self._loop = name, sink, loop
        self.writer = -1
        self.environment: Mapping[str, str] = {}
        if found is None:
            self._read, self.writer = _pipe(name)
        else:
            self._read = found
        self._partial = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        if self._read >= 0:
            os.set_blocking(self._read, False)
            loop.add_reader(self._read, self._on_readable)

    def spawned(self) -> None:
        """Close our copy of the worker's end: the worker has its own, or failed to start."""
        os.close(self.writer)

    def fileno(self) -> int:
        """Return the end that is read, borrowed; -1 when it is closed."""
        return self._read

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines the worker wrote."""
        return tuple(self._tail)

    def last_words(self, why: str) -> Words:
        """Return the last lines, up to what is in the pipe now."""
        del why
        self.catch_up()
        return Words(lines=self.tail)

    def ended(self, how: str) -> None:
        """Take what is in the pipe, then close it: whoever else has it is being killed."""
        del how
        self.close()

    def has_been_read(self) -> bool:
        """Tell that nobody but us reads it."""
        return True

    def read_on(self) -> None:
        """Read again after the sink was full."""
        if self._read >= 0:
            self._loop.add_reader(self._read, self._on_readable)

    def catch_up(self) -> None:
        """Take what is in the pipe now, even while the sink is full."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # a whole pipe; whoever still writes must not hold us
                if self._read < 0 or not self._take():
                    break

    def close(self) -> None:
        """Take what is in the pipe, then close it."""
        if self._read < 0:
            return
        self.catch_up()
        if self._partial:
            self._line(self._partial)
        self._shut()

    def _on_readable(self) -> None:
        if self._sink.full:
            self._loop.remove_reader(self._read)
            self._sink.resume(self)
            return
        with contextlib.suppress(BlockingIOError):
            if not self._take():
                self._shut()

    def _take(self) -> bool:
        data = os.read(self._read, CHUNK)
        if not data:
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LINE_MAX:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._line(line)
        return True

    def _line(self, line: bytes) -> None:
        text = line[:LINE_MAX].decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        self._sink.line(self._name, text)

    def _shut(self) -> None:
        self._loop.remove_reader(self._read)
        os.close(self._read)
        self._read = -1


def _pipe(name: str) -> tuple[int, int]:
    try:
        return os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise SpawnError(
            f"cannot open the pipe that {name} prints to: {(error.strerror or '').lower()}",
            do="raise LimitNOFILE= of the manager",
        ) from error
