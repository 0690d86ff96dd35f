"""Measures what a manager and its workers use, in the process that asks. Owns nothing.

A worker is its process and all descendants. The share of CPU is counted from the last measurement,
at the first one from the start of the process. The kernel may refuse to show some processes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace

import psutil

from sockmgr.api.types import Status, WorkerStatus
from sockmgr.kernel import connections, memory, own_cgroups
from sockmgr.kernel.delegation import PRESSURES, Group
from sockmgr.kernel.procfs import descendants, sockets_of
from sockmgr.metrics.usage import Usage


class Meter:
    """Measures again and again, and remembers the CPU time of each process from the last time."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float]] = {}  # pid -> an instant, seconds of CPU by it

    def measure(self, status: Status) -> tuple[Usage, Mapping[str, Usage]]:
        """Return what the manager uses, and what each worker uses, by the worker's name."""
        manager = status.manager.pid
        found = _connections(status)
        workers = {
            worker.name(name): worker
            for name, service in status.services.items()
            for worker in service.workers
        }
        usage = {name: self._worker(name, worker, found) for name, worker in workers.items()}
        own = self._processes([manager])
        known = {manager, *(worker.pid for worker in workers.values())}
        self._before = {pid: was for pid, was in self._before.items() if pid in known}
        return own, usage

    def _worker(self, name: str, worker: WorkerStatus, found: frozenset[int] | None) -> Usage:
        if not worker.pid:
            return Usage()
        members = [worker.pid, *descendants(worker.pid)]
        usage = self._processes(members)
        held = frozenset[int]().union(*map(sockets_of, members))
        # A worker has at least its listeners, so without any socket we may not look into it.
        number = None if found is None or not held else len(held & found)
        return replace(_with_group(usage, name, worker.pid), connections=number)

    def _processes(self, members: list[int]) -> Usage:
        """Measure the first of `members` together with the others, which are its descendants."""
        rss, spent, started = 0, 0.0, None
        for pid in members:
            with contextlib.suppress(psutil.Error):  # the process has ended
                process = psutil.Process(pid)
                rss += process.memory_info().rss
                # With the time of the children that it has waited for, so the sum never falls.
                spent += sum(process.cpu_times()[:4])
                started = started or process.create_time()
        if started is None:
            return Usage()
        cpu = self._share(members[0], spent, time.time() - started)
        # A PSS of 0 means that the kernel refused it, since no process is without memory.
        return Usage(cpu=cpu, spent=spent, rss=rss, pss=memory.used(members) or None)

    def _share(self, pid: int, spent: float, age: float) -> float:
        now = time.monotonic()
        since, before = self._before.get(pid, (now - age, 0.0))
        self._before[pid] = now, spent
        return max(0.0, 100 * (spent - before) / max(0.01, now - since))


def _with_group(usage: Usage, name: str, pid: int) -> Usage:
    """Return what is used, with what the worker's own cgroup tells, if it has one."""
    path = own_cgroups.of(pid)
    if path is None or path.name.rstrip("+") != name:
        return usage
    group = Group(path)
    told = {resource: group.pressure(resource) for resource in PRESSURES}
    known = {resource: each for resource, each in told.items() if each}
    return replace(
        usage,
        memory=group.memory,
        stalled={resource: seconds for resource, (_, seconds) in known.items()},
        pressure=max((share for share, _ in known.values()), default=None),
    )


def _connections(status: Status) -> frozenset[int] | None:
    """Return the inodes of all connections to the listeners; None where the kernel refuses."""
    try:
        return connections.to_addresses(each.address for each in status.listeners.values())
    except OSError:
        return None
