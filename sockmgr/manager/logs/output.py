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
from sockmgr.manager.logs.sink import Sink
from sockmgr.terminal.pieces import Cutter, Piece, readable, whole

CHUNK = 65536
TAIL_LINES = 20
LINES_A_TURN = 100  # of one worker; then other workers and control clients have their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """The last `lines` that a worker printed; `before` fetches lines before them, if there are any.

    `place` is set if the first line stands for lines that only that journal has. `said_by` names
    the program that printed them in the worker's stead.
    """

    lines: tuple[str, ...] = ()
    said_by: str = ""
    place: JournalPlace | None = None
    before: Callable[[], Awaitable[LastWords]] | None = None

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
    """Where stdout and stderr of a worker go. `writer` is the worker's end, borrowed."""

    writer: int
    environment: Mapping[str, str]

    def spawned(self) -> None:
        """Close our copy of the worker's end: the worker has its own, or failed to start."""

    def fileno(self) -> int:
        """Return the fd that the next manager needs to go on, borrowed; -1 if there is none."""

    def last_words(self, why: str) -> LastWords:
        """Return what the worker has printed until now; `why` says what we look for it."""

    def ended(self, how: str) -> None:
        """Note that the worker has ended; it is not reaped yet."""

    def has_been_read(self) -> bool:
        """Return whether the worker may be reaped, as far as its output is concerned."""

    def leave(self) -> None:
        """Pass on what was read already: the next manager reads only what comes after it."""

    def close(self) -> None:
        """Close our end: nothing more will be read."""


class Output:
    """The pipe one worker's stdout and stderr go to. Owns both ends until `spawned` and `close`."""

    def __init__(
        self, name: str, sink: Sink, loop: asyncio.AbstractEventLoop, found: int | None = None
    ) -> None:
        """Make a pipe, or own the reading end of a pipe that was `found` (-1: there is none).

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
        self._tail_continues = False  # whether the tail begins in the middle of a line
        self._listens = False
        if self._read >= 0:
            os.set_blocking(self._read, False)
            self._listen()

    def spawned(self) -> None:
        """Close our copy of the worker's end: the worker has its own, or failed to start."""
        os.close(self.writer)

    def fileno(self) -> int:
        """Return the reading end, borrowed; -1 when it is closed."""
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
        """Read the rest of the pipe and close it: other processes that hold it are being killed."""
        del how
        self.close()

    def has_been_read(self) -> bool:
        """Return True: the pipe has no reader but us."""
        return True

    def leave(self) -> None:
        """Pass on what we have read; an unfinished line goes as a part of a line."""
        rest = [*self._cutter.take(CHUNK), *self._cutter.unfinished]
        if self._cutter.unfinished:
            rest[-1] = rest[-1]._replace(partial=True)
        self._tell(rest)
        self._cutter = Cutter()

    def read_on(self) -> None:
        """Go on reading after the sink was full."""
        if self._read >= 0:
            self._pass_on()

    def catch_up(self) -> None:
        """Read what is in the pipe now, even while the sink is full."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # a whole pipe; whoever still writes must not hold us
                if self._read < 0 or not self._fill():
                    break
                self._tell(self._cutter.take(CHUNK))

    def close(self) -> None:
        """Read the rest of the pipe, then close it."""
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
