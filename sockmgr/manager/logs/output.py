"""The pipe that each worker writes to, and what it said last, for the verdict.

When nobody takes what we write to stderr, the pipes are not read, so a worker waits exactly as it
would with that stderr of its own.
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
from sockmgr.manager.logs.sink import Sink
from sockmgr.terminal.pieces import Cutter, Piece, readable, whole

CHUNK = 65536
TAIL_LINES = 20
LINES_A_TURN = 100  # of one worker: others, and whoever asks us something, have their turn, too


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """What a worker said last: lines, and some before them that must be asked for first.

    `place` is set if the first line stands for others, which only that journal has. `said_by` is
    who said it in the worker's stead.
    """

    lines: tuple[str, ...] = ()
    said_by: str = ""
    place: JournalPlace | None = None
    before: Callable[[], Awaitable[LastWords]] | None = None

    def plus(self, line: str) -> LastWords:
        """Return them with a line of our own at the end."""
        return replace(self, lines=(*self.lines, line))

    async def all(self) -> LastWords:
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

    def last_words(self, why: str) -> LastWords:
        """Return what the worker has said until now, when we look because of `why`."""

    def ended(self, how: str) -> None:
        """The worker has ended, and is not reaped yet."""

    def has_been_read(self) -> bool:
        """Tell whether it may be reaped, as far as its output is concerned."""

    def leave(self) -> None:
        """Pass on what has been read: the next manager reads on behind it."""

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
        self._cutter = Cutter()
        self._tail: deque[Piece] = deque(maxlen=TAIL_LINES)
        self._tail_continues = False  # whether it begins in the middle of a line
        self._listens = False
        if self._read >= 0:
            os.set_blocking(self._read, False)
            self._listen()

    def spawned(self) -> None:
        """Close our copy of the worker's end: the worker has its own, or failed to start."""
        os.close(self.writer)

    def fileno(self) -> int:
        """Return the end that is read, borrowed; -1 when it is closed."""
        return self._read

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines the worker wrote."""
        pieces = [*self._tail, *self._cutter.unfinished]
        return tuple(map(readable, whole(pieces, continued=self._tail_continues)))

    def last_words(self, why: str) -> LastWords:
        """Return the last lines, up to what is in the pipe now."""
        del why
        self.catch_up()
        return LastWords(lines=self.tail)

    def ended(self, how: str) -> None:
        """Take what is in the pipe, then close it: whoever else has it is being killed."""
        del how
        self.close()

    def has_been_read(self) -> bool:
        """Tell that nobody but us reads it."""
        return True

    def leave(self) -> None:
        """Pass on what we have; what is without its end yet as a part of a line."""
        rest = [*self._cutter.take(CHUNK), *self._cutter.unfinished]
        if self._cutter.unfinished:
            rest[-1] = rest[-1]._replace(partial=True)
        self._tell(rest)
        self._cutter = Cutter()

    def read_on(self) -> None:
        """Go on after the sink was full."""
        if self._read >= 0:
            self._pass_on()

    def catch_up(self) -> None:
        """Take what is in the pipe now, even while the sink is full."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # a whole pipe; whoever still writes must not hold us
                if self._read < 0 or not self._fill():
                    break
                self._tell(self._cutter.take(CHUNK))

    def close(self) -> None:
        """Take what is in the pipe, then close it."""
        if self._read >= 0:
            self.catch_up()
            self._shut()

    # It waits for more, for the sink, or for its next turn.

    def _listen(self, *, more: bool = True) -> None:
        if more and not self._listens:
            self._loop.add_reader(self._read, self._on_readable)
        elif self._listens and not more:
            self._loop.remove_reader(self._read)
        self._listens = more

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not (self._sink.full or self._fill()):
                self._shut()
        self._pass_on()

    def _pass_on(self) -> None:
        """Pass on what there is, and let others have their turn before there is more."""
        if self._read < 0:
            return
        if self._sink.full:
            self._listen(more=False)
            self._sink.resume(self.read_on)
            return
        pieces = self._cutter.take(LINES_A_TURN)
        self._tell(pieces)
        if len(pieces) == LINES_A_TURN:
            self._listen(more=False)
            self._loop.call_soon(self._pass_on)
        else:
            self._listen()

    def _fill(self) -> bool:
        data = os.read(self._read, CHUNK)
        self._cutter.feed(data)
        return bool(data)

    def _tell(self, pieces: Sequence[Piece]) -> None:
        if not pieces:
            return
        for piece in pieces:
            if len(self._tail) == TAIL_LINES:
                self._tail_continues = self._tail[0].partial
            self._tail.append(piece)
        self._sink.lines(self._name, pieces)

    def _shut(self) -> None:
        self._tell([*self._cutter.take(CHUNK), *self._cutter.unfinished])
        self._cutter = Cutter()
        self._listen(more=False)
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
