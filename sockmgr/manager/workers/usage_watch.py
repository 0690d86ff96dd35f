"""Looks now and then at what one worker uses, and tells when it has reached a limit of its spec.

Asleep in between, and there only where there is a limit. Decides nothing: see fleet/limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sockmgr.config.spec import Spec
from sockmgr.fleet.limits import Limit, reached
from sockmgr.kernel.heartbeat import HeartbeatMemory
from sockmgr.kernel.memory import footprint
from sockmgr.kernel.process import Process
from sockmgr.kernel.procfs import cpu_time, start_time, tree
from sockmgr.log import Log

log = Log("sockmgr")

PACE, PACE_MAX = 5.0, 60.0  # seconds between two looks
COST_SHARE = 100  # times the cost of a look until the next: smaps_rollup walks all pages
MEASURED = (Limit.RSS, Limit.REQUESTS, Limit.CPU_TIME)


class UsageWatch:
    """Of one worker, called `name`. `tell` is called once, with the limit and how far it got.

    `process` returns its process, and the `memory` of its figures is borrowed.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        process: Callable[[], Process],
        memory: HeartbeatMemory | None,
        tell: Callable[[Limit, str], None],
    ) -> None:
        self._name, self._spec, self._process, self._memory = name, spec, process, memory
        self._tell = tell
        self._limits = {limit for limit in MEASURED if getattr(spec, limit)}

    async def watch(self) -> None:
        """Look until a limit is reached, or none is left that can be seen."""
        process, unseen = self._process(), set[Limit]()
        pause = PACE * process.draw  # workers that got ready together are not looked at together
        while self._limits:
            await asyncio.sleep(pause)
            used, cost = await asyncio.to_thread(_look, process.pid, self._spec.max_rss or 0)
            if figures := self._memory and self._memory.figures():
                used[Limit.REQUESTS] = figures.begun
            known = {limit: used[limit] for limit in self._limits & used.keys()}
            if found := reached(self._spec, known, process.draw):
                self._tell(*found)
                return
            before, unseen = unseen, self._limits - used.keys()
            if unseen & before:  # at once it would be told of one that is just ending
                which = ", ".join(sorted(unseen))
                log.warning("limits have no effect", worker=self._name, cannot_be_seen=which)
                self._limits -= unseen
            pause = min(PACE_MAX, max(PACE, COST_SHARE * cost))


def _look(pid: int, enough: int) -> tuple[dict[Limit, float], float]:
    """Return what a process and its descendants use, and the seconds of our own that it took."""
    began = time.thread_time()
    if not start_time(pid):  # gone, or hidden: hidepid in proc(5)
        return {}, 0.0
    pids = list(tree(pid))
    used = {Limit.RSS: footprint(pids, enough), Limit.CPU_TIME: sum(map(cpu_time, pids))}
    return used, time.thread_time() - began
