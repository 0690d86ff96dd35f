"""Processes that another manager started in the very moment of its death.

No state names such a process, so it would take connections for ever. It may have some already.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Iterator, Set

from sockmgr.config.spec import Spec
from sockmgr.fleet.descendants import Orphans
from sockmgr.kernel import rights
from sockmgr.kernel.cgroup import members, own_unit
from sockmgr.kernel.procfs import owner_of, sockets_of, start_time
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.manager.workers.tree import Remains


def end_strangers(
    services: Iterable[tuple[Spec, Collection[Survivor], Set[int]]], known: Collection[int]
) -> None:
    """Tell the strangers of services to stop; kill after its `drain_timeout` those that live.

    Each service is its newest spec, those whose descriptors were stored, and its sockets. Its
    strangers are those, and the processes of our unit that hold one of the sockets and descend from
    no `known` process: without a unit, nothing says which of the others are ours. What was stored
    is closed when all of them have ended.
    """
    holders = dict(_holders(known))
    for spec, stored, sockets in services:
        found = {pid for pid, held in holders.items() if not held.isdisjoint(sockets)}
        found |= {each.process.pid for each in stored}
        _end(spec, stored, found)
        for pid in found & holders.keys():  # of a listener of several services
            del holders[pid]


def _end(spec: Spec, stored: Collection[Survivor], pids: Set[int]) -> None:
    loop = asyncio.get_running_loop()
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


def _holders(known: Collection[int]) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield each process of our unit that nobody knows, with the sockets that it has."""
    unit = own_unit()
    # The descendants of a known process are spared with it: an adopted worker may have children.
    ours = {*known, os.getpid()}
    for pid in members(unit) if unit else ():
        if not owner_of(pid, ours):
            yield pid, sockets_of(pid)
