"""Processes that another manager started in the very moment of its death.

No state names such a process, so it would take connections for ever. It may have some already.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Set

from sockmgr.config.spec import Spec
from sockmgr.fleet.descendants import Orphans
from sockmgr.kernel import rights
from sockmgr.kernel.cgroup import members, own_unit
from sockmgr.kernel.procfs import owner_of, sockets_of, start_time
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.manager.workers.tree import Remains


def end_strangers(
    spec: Spec, stored: Collection[Survivor], sockets: Set[int], known: Collection[int]
) -> Set[int]:
    """Tell the strangers of a service to stop; kill after its `drain_timeout` those that live.

    They are those whose descriptors were `stored`, which are closed when all have ended, and the
    processes of our unit that hold one of these `sockets` and descend from no `known` process.
    Without a unit, nothing says which of the others are ours. Returns their pids.
    """
    loop = asyncio.get_running_loop()
    pids = {each.process.pid for each in stored}.union(_holders(sockets, known))
    found = {pid: start_time(pid) for pid in pids}

    def left() -> list[int]:
        return [pid for pid, started in found.items() if start_time(pid) == started]

    def close() -> None:
        for each in stored:
            each.process.close()
            rights.close_all(fd for fd in (*each.outputs, *(each.channel or ())) if fd >= 0)

    orphans = Orphans(spec.stop_signal, loop.time() + spec.drain_timeout)
    # One that is passed connections holds none of the sockets.
    Remains("the manager before", loop, left, lambda: None, orphans, close).look()
    return found.keys()


def _holders(sockets: Set[int], known: Collection[int]) -> Iterator[int]:
    unit = own_unit()
    # The descendants of a known process are spared with it: an adopted worker may have children.
    ours = {*known, os.getpid()}
    for pid in members(unit) if unit else ():
        if not owner_of(pid, ours) and not sockets_of(pid).isdisjoint(sockets):
            yield pid
