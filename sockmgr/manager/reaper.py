"""Reaps orphans: descendants whose parents have ended, so that the manager became their parent.

They are logged in at most one record a second, and ended when the manager stops: a process that
left its session before its worker ended is in no worker's tree any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection

from sockmgr.fleet.descendants import HELPER_TIME, Orphans
from sockmgr.fleet.endings import describe_exit
from sockmgr.kernel.cgroup import Unit, members
from sockmgr.kernel.process import reap_strays
from sockmgr.kernel.procfs import children, start_time, tree
from sockmgr.log import Log
from sockmgr.manager.workers.tree import Remains

REAP_PACE = 0.05  # seconds between two looks at all children, however many of them end
REPORT_PACE = 1.0  # between two records

log = Log("sockmgr")


class Reaper:
    """Reaps the orphans of one manager, from `watch` until `end`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        known: Callable[[], Collection[int]],
        reaped: Callable[[], None],
        quiet: set[int],
    ) -> None:
        """Spare the processes that are `known`, or that live now; call `reaped` after each reaping.

        The ends of processes in `quiet`, our own helpers, are not logged; they are taken out of it.
        """
        self._loop, self._known, self._reaped, self._quiet = loop, known, reaped, quiet
        # Of whoever became the manager by execve(2): a script that starts something else before.
        self._before = frozenset(pid for child in children(os.getpid()) for pid in tree(child))
        self._unreported: Counter[int] = Counter()
        self._last = (0, 0)
        self._reap_at = self._report_at = 0.0
        self._due: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Reap from now on, also what has ended before."""
        self._loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        self._on_child()

    async def end(self, unit: Unit | None) -> None:
        """End all orphans, also those in our `unit` whose parent was another manager.

        They get a second, as helpers of a worker do.
        """
        done = self._loop.create_future()

        def left() -> list[int]:
            # The children are read anew each time: those of an orphan become ours when it ends.
            spared = {os.getpid(), *self._known(), *self._before}
            found = dict.fromkeys([*children(os.getpid()), *(members(unit) if unit else ())])
            return [pid for pid in found if pid not in spared]

        orphans = Orphans(signal.SIGTERM, self._loop.time() + HELPER_TIME)
        remains = Remains(
            "a worker", self._loop, left, frozenset, orphans, lambda: done.set_result(None)
        )
        remains.look()
        await done

    def _on_child(self) -> None:
        # SIGCHLD comes for each of a thousand workers, and a look reads about all children.
        if self._due is None:
            at = max(self._loop.time(), self._reap_at)
            self._due = self._loop.call_at(at, self._reap)

    def _reap(self) -> None:
        self._due, self._reap_at = None, self._loop.time() + REAP_PACE
        found = [one for one in reap_strays(self._known()) if one[0] not in self._quiet]
        # A helper may also have been reaped by its owner; its pid may become another's then.
        self._quiet -= {pid for pid in self._quiet if not start_time(pid)}
        for self._last in found:
            self._unreported[self._last[1]] += 1
        if found:
            self._reaped()
            if self._loop.time() >= self._report_at:
                self._report()

    def _report(self) -> None:
        """Log all that were reaped since the last record, and wait before the next one."""
        number = self._unreported.total()
        if number == 1:
            log.info("descendant reaped", pid=self._last[0], how=describe_exit(self._last[1]))
        elif number:
            [(status, _)] = self._unreported.most_common(1)
            log.info("descendants reaped", number=number, how=f"most {describe_exit(status)}")
        if number:
            self._report_at = self._loop.time() + REPORT_PACE
            self._loop.call_at(self._report_at, self._report)
        self._unreported.clear()
