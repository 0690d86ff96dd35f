"""Shows the developer the lines of the workers, and the result of each save.

Takes the place of the manager's sink, so nothing here waits for the terminal. Of the manager's own
records only warnings and errors are shown. The lines of a worker are kept until it is ready,
because they explain its failure if it never gets ready.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from sockmgr.api.records import EventKind
from sockmgr.dev.failure import OUTPUT_MAX, TRACEBACK
from sockmgr.errors import SockmgrError
from sockmgr.fleet.messages import State
from sockmgr.log import Occurrence
from sockmgr.manager.logs.sink import Sink, prefix
from sockmgr.terminal.pieces import Piece, readable
from sockmgr.terminal.visible import visible

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
RED, GREEN, YELLOW, DIM, BOLD = 31, 32, 33, 2, 1
# The developer sees these as a failure with its traceback, or as the banner of a reload.
_SHOWN_OTHERWISE: Container[str] = frozenset(
    {EventKind.WORKER_ENDED, EventKind.WORKER_KILLED, EventKind.ABORTED, EventKind.RELOAD_REFUSED}
)


@dataclass(slots=True)
class _Starting:
    """A worker that is not ready yet: its last lines, and those that are not shown yet (`held`)."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=OUTPUT_MAX))
    held: list[Piece] = field(default_factory=list)
    why_killed: str = ""


class Screen(Sink):
    """Writes to standard error. Calls `failed` for each worker that ended before it was ready.

    Its arguments are the worker's name, its last lines, and how it ended.
    """

    def __init__(self, fd: int = 2, *, lively: bool = False, verbose: bool = False) -> None:
        """Write to `fd`, which is borrowed.

        Without `lively`, there are no colours, and no line is held back until a worker is ready.
        With `verbose`, all records of the manager are shown.
        """
        super().__init__(fd)
        self.lively, self._verbose = lively, verbose
        self._out = fd
        self._colours: dict[str, int] = {}
        self._starting: dict[str, _Starting] = {}
        self.failed: Callable[[str, list[str], str], None] = lambda *_: None  # until a session does

    @property
    def width(self) -> int:
        try:
            return max(20, os.get_terminal_size(self._out).columns)
        except OSError:  # no terminal
            return 100

    def say(self, text: str, *styles: int) -> None:
        """Write lines that come from dev itself."""
        for line in text.splitlines():
            self.write(f"{self._styled(line, *styles)}\n")

    def complain(self, error: SockmgrError) -> None:
        self.say(f"error: {error}", RED)

    def show_lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        """Show the lines that a worker wrote, or hold them back."""
        del stream
        for piece in pieces:
            self._take(worker, piece)

    def show_record(self, record: logging.LogRecord) -> None:
        """Show one of the manager's records if it is trouble, and note how workers fare."""
        happened = record.msg
        if self._verbose or _is_trouble(record.levelno, happened):
            colour = RED if record.levelno >= logging.ERROR else YELLOW
            self.say(record.getMessage(), colour if record.levelno >= logging.WARNING else DIM)
        match happened:
            case Occurrence(EventKind.WORKER_STARTED, {"worker": str(worker)}):
                self._starting[worker] = _Starting()
            case Occurrence(EventKind.WORKER_READY, {"worker": str(worker)}):
                self._release(worker)
            case Occurrence(EventKind.WORKER_KILLED, {"worker": str(worker), "why": str(why)}):
                if starting := self._starting.get(worker):
                    starting.why_killed = why
            case Occurrence(
                EventKind.WORKER_ENDED, {"worker": str(worker), "how": how, "was": was}
            ):
                self._ended(worker, str(how), was)
            case _:
                pass

    # Private

    def _take(self, worker: str, piece: Piece) -> None:
        starting = self._starting.get(worker)
        if starting is None:
            self._show(worker, piece)
            return
        starting.lines.append(readable(piece.text))
        # A traceback is shown with the failure, in a form that is easier to read.
        if self.lively and (starting.held or TRACEBACK in piece.text):
            starting.held.append(piece)
            del starting.held[: -2 * OUTPUT_MAX]
        else:
            self._show(worker, piece)

    def _ended(self, worker: str, how: str, was: object) -> None:
        starting = self._starting.pop(worker, None)
        if starting is None:
            return
        if was in (State.STARTING, State.KILLED):
            what = f"was {starting.why_killed}" if starting.why_killed else how
            self.failed(worker, list(starting.lines), what)
        else:
            self._show_held(worker, starting)

    def _release(self, worker: str) -> None:
        if starting := self._starting.pop(worker, None):
            self._show_held(worker, starting)

    def _show_held(self, worker: str, starting: _Starting) -> None:
        for piece in starting.held:
            self._show(worker, piece)

    def _show(self, worker: str, piece: Piece) -> None:
        who = self._styled(prefix(worker, piece), self._colour(worker))
        self.write(f"{who} {self.clean(piece.text)}\n")

    def _colour(self, worker: str) -> int:
        service, _, place = worker.partition("@")
        slot = f"{service}.{place.partition('.')[2]}"
        return self._colours.setdefault(slot, COLOURS[len(self._colours) % len(COLOURS)])

    def clean(self, text: str) -> str:
        """Return `text` without sequences that control the terminal, apart from colours."""
        return visible(text, colours=self.lively) if self._is_terminal else text

    def _styled(self, text: str, *styles: int) -> str:
        if not (self.lively and styles):
            return text
        return f"\x1b[{';'.join(map(str, styles))}m{text}\x1b[0m"


def _is_trouble(level: int, happened: object) -> bool:
    match happened:
        case Occurrence(EventKind.WORKER_ENDED, {"was": was}):
            return was is State.READY
        case Occurrence(kind) if kind in _SHOWN_OTHERWISE:
            return False
        case _:
            return level >= logging.WARNING
