"""The end of a process: its death is seen, its output read, the process reaped, then reported.

What the process has left may end before it is reaped: until then no new process can get its pid,
so the number of its session and group still means the same processes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from sockmgr.fleet.endings import describe_exit
from sockmgr.kernel.process import Process
from sockmgr.manager.logs.output import WorkerOutput

READ_DELAY = 0.001  # between two looks whether the output of one that ended has been read ...
READ_TIMEOUT = 0.2  # ... and it is reaped after this time all the same
KILL_SIGNAL = 9


class Exit:
    """Waits for the end of `process`, and calls `told` with the status once it has been reaped.

    Before that, when the process is dead, `dying(status, alone)` is called: the receiver calls
    `alone()` when no descendant of the process is left.
    """

    def __init__(
        self,
        process: Process,
        output: WorkerOutput,
        loop: asyncio.AbstractEventLoop,
        dying: Callable[[int, Callable[[], None]], None],
        told: Callable[[int], None],
    ) -> None:
        self._process, self._output, self._loop = process, output, loop
        self._dying, self._told = dying, told
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(process.pidfd, self._on_exit)

    def close(self) -> None:
        self._loop.remove_reader(self._process.pidfd)
        if self._timer:
            self._timer.cancel()

    def _on_exit(self) -> None:
        if (status := self._process.peek()) is not None:
            # The process is not reaped yet: its pid must stay its own until its descendants end.
            self._loop.remove_reader(self._process.pidfd)
            self._dying(status, functools.partial(self._alone, status))

    def _alone(self, status: int) -> None:
        # Once more, as no look can be sure. Before the reap nobody else can have its group.
        self._process.signal_group(KILL_SIGNAL)
        self._output.ended(describe_exit(status))
        self._reap(status, self._loop.time() + READ_TIMEOUT)

    def _reap(self, status: int, until: float) -> None:
        """Reap it when its output has been read, which may need the process: not long after."""
        if not self._output.has_been_read() and self._loop.time() < until:
            self._timer = self._loop.call_later(READ_DELAY, self._reap, status, until)
            return
        self._process.poll()
        self._told(status)
