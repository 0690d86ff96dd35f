"""A readiness command: run beside its worker, again until it exits with 0."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.kernel.process import Process
from sockmgr.manager.logs.output import Output
from sockmgr.manager.workers.command import Command, Result
from sockmgr.manager.workers.context import WorkerContext

AGAIN_DELAY = 0.25  # seconds between two tries: most commands cost a process and a request


class ReadyCommand:
    """Starts the command by `start` (given the pipe to write to) and calls `done` at its yes.

    There is no timeout here: the fleet kills a worker after its ready_timeout.
    """

    def __init__(
        self,
        name: str,
        context: WorkerContext,
        start: Callable[[Output], Process],
        done: Callable[[], None],
    ) -> None:
        self._name, self._context, self._start, self._done = name, context, start, done
        self._command: Command | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last = ""
        self._run()

    @property
    def seen(self) -> str:
        """Say what it did last, for a worker that did not get ready."""
        if not self._command:
            return self._last
        return f"it still runs; before that {self._last}" if self._last else "it still runs"

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._command:
            self._command.close()
            self._command = None

    def _run(self) -> None:
        self._command = Command(self._name, self._context, self._ended)
        self._command.start(self._start)

    def _ended(self, result: Result) -> None:
        self._command = None
        if not result.fault:
            self._done()
            return
        # The last words are kept for the verdict, which comes long after the command has ended.
        self._last = ": ".join([f"it {result.fault}", *result.lines[-1:]])
        self._timer = self._context.loop.call_later(AGAIN_DELAY, self._run)
