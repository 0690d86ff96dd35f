"""The pipe that each worker writes to, and its last lines, for the verdict.

While stderr of the manager takes no more bytes the pipes are not read, so a worker waits exactly as
it would if that stderr were its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sockmgr.api.types import JournalPlace
from sockmgr.errors import SpawnError
from sockmgr.terminal.pieces import Cutter, Piece, readable, whole

CHUNK = 65536
TAIL_LINES = 20
PAUSE = 0.005  # seconds between two looks at a pipe into which lines come one by one
FEW = CHUNK // 8  # bytes of a look: if more has come, others have had to wait for us
LINES_A_TURN = 100  # of one worker; then other workers and control clients have their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """The last `lines` that a worker printed; `before` fetches lines before them, if there are any.

    `place` is set if the first line stands for lines that only that journal has. `said_by` names
    the program that printed them in the worker's stead. `seen` is what its last probe found wrong.
    """

    lines: tuple[str, ...] = ()
    said_by: str = ""
    place: JournalPlace | None = None
    before: Callable[[], Awaitable[LastWords]] | None = None
    seen: str = ""

    def plus(self, line: str) -> LastWords:
        """Return the same words with a line of our own at the end."""
        return replace(self, lines=(*self.lines, line))

    async def all(self) -> LastWords:
        """Return the same words with the lines that had to be fetched."""
        if self.before is None:
            return self
        asked = await self.before()
        return replace(asked, lines=(*asked.lines, *self.lines))


class WorkerOutput(Protocol):
    """Where stdout and stderr of a worker go.

    `ends` is what the worker gets as these two, borrowed. `stdout` is the output of stdout if this
    one is of stderr alone.
    """

    ends: tuple[int, int]
    environment: Mapping[str, str]
    stdout: Output | None

    def spawned(self) -> None:
        """Close our copy of the worker's end: the worker has its own, or failed to start."""

    def fileno(self) -> int:
        """Return the fd that the next manager needs to go on, borrowed; -1 if there is none."""

    def last_words(self, why: str) -> LastWords:
        """Return what the worker has printed until now; `why` says for what reason we ask."""

    def ended(self, how: str) -> None:
        """Note that the worker has ended; it is not reaped yet."""

    def has_been_read(self) -> bool:
        """Return whether the worker may be reaped, as far as its output is concerned."""

    def leave(self) -> None:
        """Pass on what was read already: the next manager reads only what comes after it."""

    def close(self) -> None:
        """Close our end: nothing more will be read."""


class Lines(Protocol):
    """Where the lines of a program go: the sink, or a share of it."""

    @property
    def full(self) -> bool:
        """Whether pipes are not read for now."""

    def lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        """Take what it wrote, to stdout or stderr if it is known to which."""

    def resume(self, read_on: Callable[[], None]) -> None:
        """Call `read_on` once there is room."""


class Output:
    """The pipe one worker's stdout and stderr go to. Owns both ends until `spawned` and `close`."""

    def __init__(
        self,
        name: str,
        sink: Lines,
        loop: asyncio.AbstractEventLoop,
        found: int | None = None,
        at_end: Callable[[], None] | None = None,
        stream: str = "",
        stdout: Output | None = None,
    ) -> None:
        """Make a pipe, or own the reading end of a pipe that was `found` (-1: there is none).

        `at_end` is called when nobody has its other end any more. Own `stdout`, the pipe of that
        if this one is of stderr alone. Raises SpawnError.
        """
        self._at_end, self._stream, self.stdout = at_end, stream, stdout
        self._name, self._sink, self._loop = name, sink, loop
        self.environment: Mapping[str, str] = {}
        # An adopted worker holds the writing end of its pipe already.
        self._read, self.writer = _pipe(name) if found is None else (found, -1)
        self.ends = (stdout or self).writer, self.writer
        self._cutter = Cutter()
        # The tail is for a verdict, and a worker may print any amount before it fails.
        self._tail: deque[Piece] = deque(maxlen=TAIL_LINES)
        self._tail_continues = False  # whether the tail begins in the middle of a line
        self._listens = False
        self._looked, self._came = 0.0, 0  # when we did last, and how many bytes we found
        if self._read >= 0:
            os.set_blocking(self._read, False)
            self._listen()

    def spawned(self) -> None:
        # The pipe would never come to its end while we hold that end as well.
        if self.writer >= 0:
            os.close(self.writer)
        if self.stdout:
            self.stdout.spawned()

    def fileno(self) -> int:
        return self._read

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines the worker wrote: those of stdout, if it is apart, before the others."""
        pieces = [*self._tail, *self._cutter.unfinished]
        before = self.stdout.tail if self.stdout else ()
        lines = map(readable, whole(pieces, continued=self._tail_continues))
        return (*before, *lines)[-TAIL_LINES:]

    def last_words(self, why: str) -> LastWords:
        """Return the last lines, up to what is in the pipe now."""
        del why
        self.catch_up()
        return LastWords(lines=self.tail)

    def ended(self, how: str) -> None:
        """Read the rest of the pipe and close it: other processes that hold it are being killed."""
        del how
        self.close()

    def has_been_read(self) -> bool:
        """Return True: the pipe has no reader but us."""
        return True

    def leave(self) -> None:
        """Pass on what we have read; an unfinished line goes as a part of a line."""
        if self.stdout:
            self.stdout.leave()
        rest = [*self._cutter.take(CHUNK), *self._cutter.unfinished]
        # The end of such a line is still to come, and only the next manager will read it.
        if self._cutter.unfinished:
            rest[-1] = rest[-1]._replace(partial=True)
        self._hand_on(rest)
        self._cutter = Cutter()

    def read_on(self) -> None:
        """Go on reading after the sink was full."""
        if self._read >= 0:
            self._pass_on()

    def catch_up(self) -> None:
        """Read what is in the pipe now, even while the sink is full."""
        if self.stdout:
            self.stdout.catch_up()
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # a whole pipe; whoever still writes must not hold us
                if self._read < 0 or not self._fill():
                    break
                self._hand_on(self._cutter.take(CHUNK))

    def close(self) -> None:
        """Read the rest of the pipe, then close it."""
        if self.stdout:
            self.stdout.close()
        if self._read >= 0:
            self.catch_up()
            self._shut()

    # An Output waits for more bytes, for the sink, or for its next turn.

    def _listen(self, *, more: bool = True) -> None:
        if more and not self._listens:
            self._loop.add_reader(self._read, self._on_readable)
        elif self._listens and not more:
            self._loop.remove_reader(self._read)
        self._listens = more

    def _on_readable(self) -> None:
        if self._read < 0:  # it was closed in a pause
            return
        self._came = 0
        with contextlib.suppress(BlockingIOError):
            if not (self._sink.full or self._fill()):
                self._shut()
                if self._at_end:
                    self._at_end()
        self._pass_on()

    def _pass_on(self) -> None:
        """Pass on what there is, and let others have their turn before there is more."""
        if self._read < 0:
            return
        if self._sink.full:  # the pipe then fills up, and its worker waits in write(2)
            self._listen(more=False)
            self._sink.resume(self.read_on)
            return
        # What was read may be more lines than are passed on in one turn: only when all of it is out
        # more is read, so that a worker which prints without end waits like one whose pipe is full.
        pieces = self._cutter.take(LINES_A_TURN)
        self._hand_on(pieces)
        if len(pieces) == LINES_A_TURN:
            self._listen(more=False)
            self._loop.call_soon(self._pass_on)
        else:
            self._wait_for_more()

    def _wait_for_more(self) -> None:
        # To be woken costs as much as twenty lines, and a busy service prints a line a request.
        before, self._looked = self._looked, self._loop.time()
        if 0 < self._came < FEW and self._looked - before < 2 * PAUSE:
            self._listen(more=False)
            self._loop.call_later(PAUSE, self._on_readable)
        else:
            self._listen()

    def _fill(self) -> bool:
        data = os.read(self._read, CHUNK)
        self._came = len(data)
        self._cutter.feed(data)
        return bool(data)

    def _hand_on(self, pieces: Sequence[Piece]) -> None:
        if not pieces:
            return
        for piece in pieces:
            if len(self._tail) == TAIL_LINES:
                self._tail_continues = self._tail[0].partial
            self._tail.append(piece)
        self._sink.lines(self._name, pieces, self._stream)

    def _shut(self) -> None:
        self._hand_on([*self._cutter.take(CHUNK), *self._cutter.unfinished])
        self._cutter = Cutter()
        self._listen(more=False)
        os.close(self._read)
        self._read = -1


def apart(
    name: str, sink: Lines, stdout: Lines, loop: asyncio.AbstractEventLoop, *found: int
) -> Output:
    """Return an output of two pipes, whose reading ends may be `found`: of stderr, of stdout."""
    err, out = found or (None, None)
    other = Output(name, stdout, loop, out, stream="stdout")
    try:
        return Output(name, sink, loop, err, stream="stderr", stdout=other)
    except SpawnError:
        other.spawned()
        other.close()
        raise


def direct(name: str, sink: Lines, loop: asyncio.AbstractEventLoop) -> Output:
    """Return the output of a worker that has the manager's own stdout and stderr: it sees none."""
    output = Output(name, sink, loop, found=-1)
    output.ends = (1, 2)
    # systemd.exec(5): it names the very descriptor that is stderr.
    output.environment = {k: v for k, v in os.environ.items() if k == "JOURNAL_STREAM"}
    return output


def _pipe(name: str) -> tuple[int, int]:
    try:
        return os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise SpawnError(
            f"cannot open the pipe that {name} prints to: {(error.strerror or '').lower()}",
            do="raise LimitNOFILE= of the manager",
        ) from error
