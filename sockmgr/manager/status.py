"""The status of a manager, put together from what its rooms know. Changes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping

from sockmgr import __version__
from sockmgr.api.types import (
    Counts,
    ListenerStatus,
    ManagerStatus,
    RolloutStatus,
    ServiceStatus,
    Status,
    WorkerStatus,
)
from sockmgr.config.spec import Listen
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.kernel.procfs import descendants
from sockmgr.kernel.queues import backlog
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.counters import Counters
from sockmgr.manager.service.service import Service


def status_of(
    listens: Iterable[Listen],
    listeners: Listeners,
    services: Mapping[str, Service],
    tally: Counters,
    started: float,
    *,
    config: str = "",
    sizes: bool = True,
) -> Status:
    """Tell what runs now, with the `sizes` of workers or without, and what was counted."""
    measure = _rss if sizes else _unmeasured
    now = asyncio.get_running_loop().time()
    return Status(
        manager=ManagerStatus(
            pid=os.getpid(),
            version=__version__,
            started=started,
            refused=tally.refused,
            config=config,
        ),
        listeners={listen.name: _listener(listeners.at(listen.address)) for listen in listens},
        services={
            name: _service(service, tally.of(name), now, measure)
            for name, service in services.items()
        },
    )


def _listener(listener: Listener) -> ListenerStatus:
    return ListenerStatus(
        address=listener.address,
        queue=listener.queued(),
        backlog=backlog(listener.queues[0]),
        cutover=listener.cutover,
        choice=listener.choice,
    )


def _service(
    service: Service, counts: Counts, now: float, measure: Callable[[int], int]
) -> ServiceStatus:
    fleet = service.fleet
    serving = fleet.serving
    return ServiceStatus(
        generation=fleet.current.number if fleet.current else 0,
        state=_state(service),
        workers=tuple(_worker(worker, service, now, measure) for worker in fleet.workers()),
        rollout=_rollout(fleet.trial, now) if fleet.trial else None,
        killed=service.processes.killed,
        died=service.processes.died,
        repairs=tuple(service.repairs),
        wanted=service.wanted,
        accept=serving.spec.accept if serving else "",
        failures=serving.failures if serving else 0,
        counts=counts,
        accepted=service.processes.dispatching.accepted,
    )


def _state(service: Service) -> str:
    fleet = service.fleet
    serving = fleet.serving
    if fleet.stopping or serving is None:
        return "stopping"
    if serving.full:
        return "serving"
    if serving.ready:
        return "degraded"
    return "down" if serving.failures else "starting"


def _worker(
    worker: Worker, service: Service, now: float, measure: Callable[[int], int]
) -> WorkerStatus:
    running = service.processes.running.get(worker.id)
    return WorkerStatus(
        slot=worker.id.slot,
        generation=worker.id.generation,
        pid=running.pid if running else 0,
        state=worker.state,
        rss=measure(running.pid) if running else 0,
        age=round(now - running.started_at, 3) if running else 0.0,
        lease=worker.lease,
        # Who hangs has its lease in common with its successor, and its channel no more.
        connections=(
            service.processes.dispatching.connections(worker.lease)
            if running and running.channel
            else None
        ),
    )


def _rss(pid: int) -> int:
    import psutil  # noqa: PLC0415 - a megabyte, for whoever asks only

    total = 0
    for member in {pid, *descendants(pid)}:
        try:
            total += psutil.Process(member).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _unmeasured(pid: int) -> int:
    del pid
    return 0


def _rollout(trial: Generation, now: float) -> RolloutStatus:
    return RolloutStatus(
        generation=trial.number,
        phase=trial.phase,
        ready=trial.ready,
        wanted=trial.wanted,
        deadline=round(max(0.0, trial.deadline - now), 3),
    )
