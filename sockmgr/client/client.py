"""The caller's side of the control socket: asks a manager and waits for its answer.

Each call has a blocking socket of its own and needs no event loop, so that commands start fast.
Only a call that changes something may wait without an end, if no timeout is given. Answers are
bounded in size. Starts no process.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sockmgr.api import varlink
from sockmgr.api.types import Plan, Progress, Status, Verdict
from sockmgr.api.varlink import PastGeneration
from sockmgr.client.connection import Connection
from sockmgr.errors import ControlError

LIVENESS_TIMEOUT = 10.0  # seconds for an answer that a manager which does not hang gives at once

_Ask = TypeVar("_Ask", bound=varlink.Ask)
_Answer = TypeVar("_Answer", bound=varlink.Answer)


class Client:
    """Asks the manager at one control socket. Its methods raise ControlError and its subclasses.

    `timeout` is in seconds and for each call; without it, a change may take as long as it needs.
    """

    def __init__(
        self, path: Path, *, timeout: float | None = None, file: Path | None = None
    ) -> None:
        """Ask the manager at `path`; with `file`, ask for changes only if it reads this config.

        A manager of a version that does not say which config it reads is assumed to read `file`.
        """
        self.path = path
        self._timeout, self._file = timeout, file

    def stranger(self) -> str:
        """Describe the manager if it reads another config than ours, else return ""."""
        return self._stranger(self.status(sizes=False)) if self._file else ""

    def peer(self) -> int:
        """Return the pid of the manager, 0 if it is in a PID namespace that we cannot see into."""
        with self._connect() as line:
            return line.peer

    def ask(self, method: varlink.Method[_Ask, _Answer], ask: _Ask) -> _Answer:
        """Return the reply to one call; raise ControlError if `file` forbids the change."""
        with self._operate() if method.changes else self._connect() as line:
            return line.converse(method, ask)

    def status(self, *, sizes: bool = True) -> Status:
        """Return what runs; without `sizes`, each `rss` is 0, and the manager needs less time."""
        return self.ask(varlink.STATUS, varlink.AskStatus(sizes=None if sizes else False))

    def plan(self, text: str | None = None, file: str | None = None) -> Plan:
        """Return what the config `text` of `file` would change; without it, what a reload would."""
        return self.ask(varlink.PLAN, varlink.AskPlan(text=text, file=file))

    def scale(self, service: str, workers: int, *, relative: bool) -> int:
        """Run this many workers, or this many more; return the number when they are ready."""
        ask = varlink.AskScale(service=service, workers=workers, relative=relative)
        return self.ask(varlink.SCALE, ask).workers

    def restart_worker(self, worker: str) -> str:
        """Replace one worker (`web@7.2`); return its successor's name when that is done."""
        ask = varlink.AskRestartWorker(worker=worker)
        return self.ask(varlink.RESTART_WORKER, ask).successor

    def upgrade(self) -> str:
        """Have the manager replace its own code; return the version that it had.

        The new code answers on a new connection, as for any other call.
        """
        return self.ask(varlink.UPGRADE, varlink.AskUpgrade()).version

    def stop(self, *, now: bool) -> None:
        """Stop the manager; return when no worker is left."""
        self.ask(varlink.STOP, varlink.AskStop(now=now))

    def reload(
        self,
        services: tuple[str, ...],
        on_progress: Callable[[Progress], None] | None = None,
        *,
        together: bool = False,
        canary: tuple[int, ...] | None = None,
        seconds: float | None = None,
        hold: bool | None = None,
    ) -> list[Verdict]:
        """Replace the workers of these services, of all if none is named; return the verdicts.

        A canary gets these percents, each for so many `seconds`, the last one held with `hold`;
        None is as the config has it.
        """
        # Left out unless it is asked for: earlier managers do not know it.
        ask = varlink.AskReload(
            services=services, together=together or None, canary=canary, seconds=seconds, hold=hold
        )
        return self._roll(ask, on_progress)

    def rollback(
        self, service: str, to: int | None, on_progress: Callable[[Progress], None] | None = None
    ) -> list[Verdict]:
        """Bring back a generation, the one before without `to`; return the verdict on it."""
        return self._roll(varlink.AskRollback(service=service or None, to=to), on_progress)

    def history(self, service: str = "") -> tuple[PastGeneration, ...]:
        """Return which generations a service has had, or each service if it is ""."""
        return self.ask(varlink.HISTORY, varlink.AskHistory(service=service or None)).generations

    def _roll(
        self, ask: varlink.Ask, on_progress: Callable[[Progress], None] | None
    ) -> list[Verdict]:
        with self._operate() as line:
            line.send(ask, more=True)
            while True:
                reply = line.receive(varlink.Reloaded)
                if reply.verdicts is not None:
                    return list(reply.verdicts)
                if reply.progress is not None and on_progress is not None:
                    on_progress(reply.progress)

    def promote(self, service: str) -> list[Verdict]:
        """Give the canary of a service ("": the only one) everything; return the verdict on it."""
        reply = self.ask(varlink.PROMOTE, varlink.AskPromote(service=service or None))
        return list(reply.verdicts or ())

    def abort(self, service: str, reason: str) -> list[Verdict]:
        """Take back the rollout of a service ("": the only one); return the verdict on it."""
        ask = varlink.AskAbort(service=service or None, reason=reason or None)
        return list(self.ask(varlink.ABORT, ask).verdicts or ())

    def logs(self, service: str, lines: int) -> varlink.Logged:
        """Return the last lines of the log, about one service, or all if it is "".

        If systemd's journal has the log, the reply says where instead.
        """
        return self.ask(varlink.LOGS, varlink.AskLogs(service=service or None, lines=lines))

    def follow_logs(self, service: str, lines: int) -> Iterator[varlink.Logged]:
        """Yield what logs() returns, then each new line, until the manager leaves."""
        ask = varlink.AskLogs(service=service or None, lines=lines)
        yield from self._follow(varlink.LOGS, ask)

    def events(
        self, service: str = "", *, after: int | None = None, last: int | None = None
    ) -> varlink.Happened:
        """Return the `last` events (None: all) about one service, or all if it is "".

        With `after`, return only the events after this id.
        """
        ask = varlink.AskEvents(service=service or None, after=after, last=last)
        return self.ask(varlink.EVENTS, ask)

    def follow_events(
        self, service: str = "", *, after: int | None = None, last: int | None = None
    ) -> Iterator[varlink.Happened]:
        """Yield what events() returns, then each new event, until the manager leaves."""
        ask = varlink.AskEvents(service=service or None, after=after, last=last)
        yield from self._follow(varlink.EVENTS, ask)

    def _follow(self, method: varlink.Method[_Ask, _Answer], ask: _Ask) -> Iterator[_Answer]:
        with self._connect() as line:
            line.send(ask, more=True)
            yield line.receive(method.reply)
            line.extend(self._timeout)
            while line.continues:
                yield line.receive(method.reply)

    @contextlib.contextmanager
    def _operate(self) -> Iterator[Connection]:
        """Connect for a call that changes something, and so may take long."""
        with self._connect(changes=True) as line:
            # If the manager hangs, this call times out: the next one may wait without an end.
            status = line.converse(varlink.STATUS, varlink.AskStatus(sizes=False))
            if stranger := self._stranger(status):
                raise ControlError(
                    stranger,
                    means="it was asked nothing",
                    do=f"to ask it all the same, name it: --control {self.path}",
                )
            line.extend(self._timeout)
            line.asked = True
            yield line

    def _stranger(self, status: Status) -> str:
        read = status.manager.config
        if self._file is None or read is None or (read and is_same(Path(read), self._file)):
            return ""
        what = f"reads {read}" if read else "was started without a config file"
        return f"the manager at {self.path} {what}: {self._file} is not its config"

    @contextlib.contextmanager
    def _connect(self, *, changes: bool = False) -> Iterator[Connection]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            line = Connection(sock, self.path)
            line.changes = changes
            line.extend(LIVENESS_TIMEOUT if self._timeout is None else self._timeout)
            line.connect()
            yield line


def is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, or are equal if there is no such file."""
    try:
        return one.samefile(other)
    except OSError:
        return one == other
