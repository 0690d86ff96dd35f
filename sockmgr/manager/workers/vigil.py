"""What is watched of a worker while it serves: its heartbeat, its probes, and what it uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Accept
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import Health, Hung, Recycle
from sockmgr.kernel.heartbeat import Beat, HeartbeatMemory
from sockmgr.kernel.process import Process
from sockmgr.log import Log
from sockmgr.manager.probes.health_watch import HealthWatch
from sockmgr.manager.workers.asking import prober
from sockmgr.manager.workers.context import Assignment
from sockmgr.manager.workers.usage_watch import MEASURED, UsageWatch
from sockmgr.manager.workers.watchdog import Watchdog

log = Log("sockmgr")


class Vigil:
    """Of one worker; it puts facts. There is a heartbeat only with a `memory`."""

    def __init__(
        self,
        assignment: Assignment,
        memory: HeartbeatMemory | None,
        process: Callable[[], Process],
    ) -> None:
        spec, loop = assignment.command.spec, assignment.context.loop
        self._id, self._put, self._process = assignment.command.worker, assignment.put, process
        self._name = f"{spec.service}@{self._id}"
        self._limit = spec.hang_timeout or 0.0
        self._watchdog = self._health = self._usage = None
        if memory and self._limit:
            self._watchdog = Watchdog(self._name, self._limit, memory, loop, self._on_hang)
        # Where the workers share a queue after all, nobody would know which of them had answered.
        if (healthy := spec.healthy) and spec.accept is not Accept.SHARED:
            asker = prober(assignment, healthy.probe)
            self._health = HealthWatch(asker, healthy.failures, self._on_health)
        if any(getattr(spec, limit) for limit in MEASURED):
            self._usage = UsageWatch(self._name, spec, process, memory, self._on_limit)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def seen(self) -> str:
        """What the last probe found wrong, or nothing."""
        return self._health.seen if self._health else ""

    def start(self) -> None:
        """Watch from now on: the worker is ready. To be called once."""
        loop = asyncio.get_running_loop()
        if self._watchdog:
            self._watchdog.start()
        for watch, name in ((self._health, "health"), (self._usage, "usage")):
            if watch:
                self._tasks.append(loop.create_task(watch.watch(), name=name))

    def stop(self) -> None:
        """Expect nothing more: an application that shuts down may block, and takes nothing."""
        if self._watchdog:
            self._watchdog.stop()
        for task in self._tasks:
            task.cancel()

    def _on_hang(self, beat: Beat, silent: float) -> None:
        process = self._process()
        log.error(EventKind.WORKER_HANGS, worker=self._name, pid=process.pid, silent=silent)
        # Only what said so itself prints its stacks on that signal; others would die of it.
        if beat.stacks_signal and beat.pid == process.pid:
            process.signal(beat.stacks_signal)
        self._put(Hung(worker=self._id, why=f"hung: no sign of life for {self._limit:g} s"))

    def _on_limit(self, limit: Limit, why: str) -> None:
        self._put(Recycle(worker=self._id, why=why, limit=limit))

    def _on_health(self, why: str) -> None:
        if why:
            log.error(EventKind.WORKER_UNHEALTHY, worker=self._name, because=why)
        self._put(Health(worker=self._id, why=why))
