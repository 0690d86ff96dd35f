"""What the workers use, measured here and not in the manager. Owns nothing; may be refused a look.

A worker is its process and all descendants. The share of CPU is that since the last look, or since
the process started when it is seen for the first time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace

import psutil

from sockmgr.api.types import Status, WorkerStatus
from sockmgr.kernel import connections, memory
from sockmgr.kernel.procfs import descendants, sockets_of
from sockmgr.metrics.usage import Usage, name_of


class Meter:
    """Measures a manager and its workers, again and again."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float]] = {}  # pid -> when, seconds of CPU until then

    def measure(self, status: Status) -> tuple[Usage, Mapping[str, Usage]]:
        """Return what the manager uses, and each worker by its name."""
        manager = status.manager.pid
        found = _connections(status)
        workers = {
            name_of(name, worker): worker
            for name, service in status.services.items()
            for worker in service.workers
        }
        usage = {name: self._worker(worker, found) for name, worker in workers.items()}
        own = self._processes([manager])
        known = {manager, *(worker.pid for worker in workers.values())}
        self._before = {pid: was for pid, was in self._before.items() if pid in known}
        return own, usage

    def _worker(self, worker: WorkerStatus, found: frozenset[int] | None) -> Usage:
        if not worker.pid:
            return Usage()
        members = [worker.pid, *descendants(worker.pid)]
        usage = self._processes(members)
        held = frozenset[int]().union(*map(sockets_of, members))
        # Whoever we may look into has its listeners at least.
        number = None if found is None or not held else len(held & found)
        return replace(usage, connections=number)

    def _processes(self, members: list[int]) -> Usage:
        """Measure the first of them together with the others, its descendants."""
        rss, spent, started = 0, 0.0, None
        for pid in members:
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                process = psutil.Process(pid)
                rss += process.memory_info().rss
                # With those of its children that it has waited for: the sum never falls.
                spent += sum(process.cpu_times()[:4])
                started = started or process.create_time()
        if started is None:
            return Usage()
        cpu = self._share(members[0], spent, time.time() - started)
        # Of a process that may not be looked into nothing is counted, and none has no memory.
        return Usage(cpu=cpu, spent=spent, rss=rss, pss=memory.used(members) or None)

    def _share(self, pid: int, spent: float, age: float) -> float:
        now = time.monotonic()
        since, before = self._before.get(pid, (now - age, 0.0))
        self._before[pid] = now, spent
        return max(0.0, 100 * (spent - before) / max(0.01, now - since))


def _connections(status: Status) -> frozenset[int] | None:
    """Return the inodes of all connections to the listeners; None where the kernel refuses."""
    try:
        return connections.to_addresses(each.address for each in status.listeners.values())
    except OSError:
        return None
