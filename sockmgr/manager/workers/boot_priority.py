"""The CPU priority of a process that boots beside others that serve. Starts and ends nothing."""

from __future__ import annotations

import asyncio

from sockmgr.kernel import process
from sockmgr.log import Log

STARVED = 1.0  # seconds that a boot at low priority has waited for a CPU: long enough

log = Log("sockmgr")


class BootPriority:
    """The boot of the process `pid` at `low` priority, until it is over or not ours any more."""

    def __init__(self, name: str, pid: int, loop: asyncio.AbstractEventLoop, *, low: bool) -> None:
        self._name, self._pid, self._loop, self._low = name, pid, loop, low
        if low:
            process.lower_priority(pid)
            self._mind_starvation()

    def over(self) -> None:
        """Give it the manager's own priority."""
        if self._low:
            self._low = False
            process.restore_priority(self._pid)

    def forget(self) -> None:
        """Touch it no more: it is gone."""
        self._low = False

    def _mind_starvation(self) -> None:
        """End the low priority of a boot that gets no CPU: on a busy machine it would never end."""
        if not self._low:
            return
        if process.waited_for_cpu(self._pid) > STARVED:
            self.over()
            log.info("boot priority restored", worker=self._name, waited=STARVED)
            return
        self._loop.call_later(STARVED / 4, self._mind_starvation)
