"""The end of a process: it is seen, what it printed is read, it is reaped, and then it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.core.model import describe_exit
from sockmgr.kernel.process import Process
from sockmgr.output import WorkerOutput

READ_DELAY = 0.001  # between two looks whether the output of one that ended has been read ...
READ_TIMEOUT = 0.2  # ... and it is reaped after this time all the same
KILL_SIGNAL = 9


class Exit:
    """Waits for the end of `process`. Calls `dying` when it is dead, `told` when it is reaped."""

    def __init__(
        self,
        process: Process,
        output: WorkerOutput,
        loop: asyncio.AbstractEventLoop,
        dying: Callable[[], None],
        told: Callable[[int], None],
    ) -> None:
        self._process, self._output, self._loop = process, output, loop
        self._dying, self._told = dying, told
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(process.pidfd, self._on_exit)

    def close(self) -> None:
        """Wait no more."""
        self._loop.remove_reader(self._process.pidfd)
        if self._timer:
            self._timer.cancel()

    def _on_exit(self) -> None:
        self._dying()
        # Before the reap the pid, and so the group, cannot belong to anybody else.
        self._process.signal_group(KILL_SIGNAL)
        status = self._process.peek()
        if status is None:
            return
        self._loop.remove_reader(self._process.pidfd)
        self._output.ended(describe_exit(status))
        self._reap(status, self._loop.time() + READ_TIMEOUT)

    def _reap(self, status: int, until: float) -> None:
        """Reap it when its output has been read, which may need the process: not long after."""
        if not self._output.has_been_read() and self._loop.time() < until:
            self._timer = self._loop.call_later(READ_DELAY, self._reap, status, until)
            return
        self._process.poll()
        self._told(status)
