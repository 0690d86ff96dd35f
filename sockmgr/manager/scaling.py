"""Requests for more workers, for fewer, or for a new one in the place of another, and their end."""

from __future__ import annotations

import asyncio

from sockmgr.config.values import MAX_WORKERS
from sockmgr.errors import ControlError
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.messages import Recycle, Scale
from sockmgr.manager.service.service import Service


async def scale(service: Service, workers: int) -> None:
    """Want this many workers from now on; return when so many are ready, or raise."""
    _check(service.name, workers)
    service.put(Scale(workers=workers))
    serving = service.fleet.serving
    # At worst the workers start one after the other, each just within its timeout.
    patience = serving.spec.ready_timeout * (workers + 1) if serving else 0.0

    def staffed() -> bool:
        current = service.fleet.current
        return bool(current and current.wanted == current.headcount == current.ready == workers)

    try:
        async with asyncio.timeout(patience):
            await service.until(staffed)
    except TimeoutError:
        ready = serving.ready if serving else 0
        raise ControlError(
            f"{service.name} has {ready} of {workers} workers after {patience:g} s",
            means="it goes on trying",
            do="the manager's log says why they fail to start",
        ) from None


def _check(service: str, wanted: int) -> None:
    """Raise ControlError for a number of workers that the config could not have either."""
    if not 1 <= wanted <= MAX_WORKERS:
        raise ControlError(
            f"{service} cannot have {wanted} workers",
            means="nothing was changed",
            do=f"ask for 1 to {MAX_WORKERS}; `sockmgr stop` ends the service",
        )


def place_of(worker: str) -> tuple[str, str]:
    """Return the service and the place (`7.2`) in the name of a worker (`web@7.2`)."""
    service, _, place = worker.rpartition("@")
    if not service:
        raise ControlError(
            f"{worker} is no worker",
            means="nothing was changed",
            do="name it as `sockmgr status` does: SERVICE@GENERATION.SLOT",
        )
    return service, place


async def restart_worker(service: Service, place: str) -> str:
    """Replace the worker at `place` (`7.2`); return its successor's name when that is done."""
    worker, current = _replaceable(service, place)
    # Workers are compared as objects: a successor may get the name of one that has ended.
    before = [id(each) for each in current.workers.values()]
    service.put(Recycle(worker=worker.id, why="its restart was asked for"))
    # The first successor may fail just before its timeout, and another one is started then.
    patience = 2 * current.spec.ready_timeout
    try:
        async with asyncio.timeout(patience):
            await service.until(lambda: not worker.active and current.full)
    except TimeoutError:
        raise ControlError(
            f"there is no successor of {service.name}@{place} after {patience:g} s",
            means="it goes on serving, and is replaced as soon as there is one",
            do="the manager's log says why the successor fails to start",
        ) from None
    fresh = [each for each in current.members if id(each) not in before]
    return f"{service.name}@{fresh[-1].id}" if fresh else ""


def _replaceable(service: Service, place: str) -> tuple[Worker, Generation]:
    # In a generation that comes or goes, its rollout decides about each worker.
    worker = next((each for each in service.fleet.workers() if str(each.id) == place), None)
    current = service.fleet.current
    if worker and worker.active and current and worker.id.generation == current.number:
        return worker, current
    what = f"is {worker.state} in a generation that comes or goes" if worker else "is not there"
    serving = [f"{service.name}@{each.id}" for each in current.members] if current else []
    raise ControlError(
        f"{service.name}@{place} {what}",
        means="nothing was changed",
        do=f"those that can be replaced are: {', '.join(serving) or 'none'}",
    )
