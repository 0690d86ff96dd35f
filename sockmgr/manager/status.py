"""The status of a manager, put together from what its rooms know. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from math import inf

from msgspec.structs import replace

from sockmgr.api.figures import Requests
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
from sockmgr.fleet.messages import Phase, State
from sockmgr.kernel.procfs import descendants, resident
from sockmgr.kernel.queues import backlog
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.counters import Counters
from sockmgr.manager.service.canary_watch import canary_status
from sockmgr.manager.service.service import Service

SLICE = 20  # workers that are measured in one turn of the loop


def status_of(
    manager: ManagerStatus,
    listens: Iterable[Listen],
    listeners: Listeners,
    services: Mapping[str, Service],
    tally: Counters,
) -> Status:
    """Return what runs now, without the sizes of workers, and what was counted."""
    now = asyncio.get_running_loop().time()
    return Status(
        manager=manager,
        listeners={listen.name: _listener(listeners.at(listen.address)) for listen in listens},
        services={n: _service(each, tally.of(n), now) for n, each in services.items()},
    )


async def measured(status: Status) -> Status:
    """Return a status with the sizes of its workers, which cost a read of /proc for each process.

    `sockmgr top` and metrics measure by themselves.
    """
    pids = [worker.pid for each in status.services.values() for worker in each.workers]
    sizes: dict[int, int] = {}
    for pid in filter(None, pids):
        # A worker is its process tree: the master of a server is seldom the one that grows.
        sizes[pid] = sum(map(resident, {pid, *descendants(pid)}))
        # A few files of /proc for each of a thousand take a tenth of a second: others come between.
        if len(sizes) % SLICE == 0:
            await asyncio.sleep(0)
    services = {
        name: replace(
            each, workers=tuple(replace(w, rss=sizes.get(w.pid, 0)) for w in each.workers)
        )
        for name, each in status.services.items()
    }
    return replace(status, services=services)


def _listener(listener: Listener) -> ListenerStatus:
    return ListenerStatus(
        address=listener.address,
        queue=listener.queued(),
        # The first stands for all: a worker that shrinks one is found by the next inspection.
        backlog=backlog(listener.queues[0]),
        cutover=listener.cutover,
        choice=listener.choice,
        unreachable=listener.why_unreachable,
    )


def _service(service: Service, counts: Counts, now: float) -> ServiceStatus:
    fleet = service.fleet
    serving = fleet.serving
    number = fleet.current.number if fleet.current else 0  # 0: none has served yet
    history = service.past.history
    return ServiceStatus(
        generation=number,
        state=_state(service),
        workers=tuple(_worker(worker, service, now) for worker in fleet.workers()),
        rollout=_rollout(service, fleet.trial, now) if fleet.trial else None,
        hook=fleet.hook.moment if fleet.hook else "",
        killed=service.processes.killed,
        died=service.processes.died,
        moved=service.processes.moved,
        repairs=tuple(service.repairs.done),
        wanted=service.wanted,
        accept=serving.spec.accept if serving else "",
        failures=serving.failures if serving else 0,
        counts=counts,
        accepted=service.processes.dispatching.accepted,
        requests=(
            Requests.of(service.processes.figures.total)
            if serving and serving.spec.has_figures
            else None
        ),
        release=history.release(number),
        rollback=history.rollback,
        recycle_pause=_recycle_pause(fleet.current, now),
    )


def _recycle_pause(current: Generation | None, now: float) -> float | None:
    left = current.recycle_from - now if current else 0.0
    return round(left, 3) if left > 0 else None


def _state(service: Service) -> str:
    fleet = service.fleet
    serving = fleet.serving
    # One ready worker is enough to serve: only without any the service counts as down.
    if fleet.stopping or serving is None:
        return "stopping"
    if fleet.is_held:
        return "waiting"
    if serving.full and not serving.sick:
        return "serving"
    if serving.ready or serving.sick:
        return "degraded"
    return "down" if serving.failures else "starting"


def _worker(worker: Worker, service: Service, now: float) -> WorkerStatus:
    running = service.processes.running.get(worker.id)
    return WorkerStatus(
        slot=worker.id.slot,
        generation=worker.id.generation,
        pid=running.pid if running else 0,
        state=worker.state,
        probe=running.found_wrong if running and worker.active else "",
        recycle=worker.recycle or (worker.worn.why if worker.worn else ""),
        rss=0,
        age=round(now - running.started_at, 3) if running else 0.0,
        lease=worker.lease,
        # Who hangs has its lease in common with its successor, and its channel no more.
        connections=(
            service.processes.dispatching.connections(worker.lease)
            if running and running.channel
            else None
        ),
    )


def _rollout(service: Service, trial: Generation, now: float) -> RolloutStatus:
    run = service.fleet.hook
    waited = run if run and run.generation == trial.number else None
    # A worker that is not ready by its own deadline ends the rollout, long before that has to end.
    boots = trial.phase is Phase.BOOTING and not waited
    late = [w.deadline for w in trial.workers.values() if boots and w.state is State.STARTING]
    deadline = min([(waited or trial).deadline, *late])
    return RolloutStatus(
        generation=trial.number,
        phase=f"hook {waited.moment}" if waited else trial.phase,
        ready=trial.ready,
        wanted=trial.wanted,
        # Seconds from now: the instants of our monotonic clock mean nothing to a client.
        deadline=None if deadline == inf else round(max(0.0, deadline - now), 3),
        canary=canary_status(trial, now, service.processes.comparing.found),
        release=service.past.history.release(trial.number),
    )
