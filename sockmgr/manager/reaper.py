"""Orphans: descendants whose parents have ended, so that the manager became their parent.

Reaped when they end, told of in at most one record a second, and ended when the manager stops:
whoever left its session before its worker ended is in nobody's tree any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection

from sockmgr.fleet.descendants import HELPER_TIME, Orphans
from sockmgr.fleet.messages import describe_exit
from sockmgr.kernel.cgroup import Unit, members
from sockmgr.kernel.process import reap_strays
from sockmgr.kernel.procfs import children, start_time, tree
from sockmgr.log import Log
from sockmgr.manager.workers.tree import Remains

REAP_PACE = 0.05  # seconds between two looks at all children, however many of them end
TELL_PACE = 1.0  # between two records

log = Log("sockmgr")


class Reaper:
    """Of one manager. `watch` while there is a loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        known: Callable[[], Collection[int]],
        reaped: Callable[[], None],
        quiet: set[int],
    ) -> None:
        """Leave alone who is `known`, and who is there now; call `reaped` when any was.

        Of those in `quiet`, our own helpers, nothing is told; they are taken out of it.
        """
        self._loop, self._known, self._reaped, self._quiet = loop, known, reaped, quiet
        # Of whoever became the manager by execve(2): a script that starts something else before.
        self._before = frozenset(pid for child in children(os.getpid()) for pid in tree(child))
        self._untold: Counter[int] = Counter()
        self._last = (0, 0)
        self._reap_at = self._tell_at = 0.0
        self._due: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Reap from now on, and what has ended before anybody told us."""
        self._loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        self._on_child()

    async def end(self, unit: Unit | None) -> None:
        """End all orphans, those in our `unit` as well that another manager was the parent of.

        They get a second, as helpers of a worker do.
        """
        done = self._loop.create_future()

        def left() -> list[int]:
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
        if self._due is None:
            at = max(self._loop.time(), self._reap_at)
            self._due = self._loop.call_at(at, self._reap)

    def _reap(self) -> None:
        self._due, self._reap_at = None, self._loop.time() + REAP_PACE
        found = [one for one in reap_strays(self._known()) if one[0] not in self._quiet]
        self._quiet -= {pid for pid in self._quiet if not start_time(pid)}
        for self._last in found:
            self._untold[self._last[1]] += 1
        if found:
            self._reaped()
            if self._loop.time() >= self._tell_at:
                self._tell()

    def _tell(self) -> None:
        """Tell of all that have not been told of, and then not before a while."""
        number = self._untold.total()
        if number == 1:
            log.info("descendant reaped", pid=self._last[0], how=describe_exit(self._last[1]))
        elif number:
            [(status, _)] = self._untold.most_common(1)
            log.info("descendants reaped", number=number, how=f"most {describe_exit(status)}")
        if number:
            self._tell_at = self._loop.time() + TELL_PACE
            self._loop.call_at(self._tell_at, self._tell)
        self._untold.clear()
