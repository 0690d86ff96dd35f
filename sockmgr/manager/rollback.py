"""The way back: an earlier generation, as it was resolved then, by a rollout like any other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sockmgr.api.types import Progress, Verdict
from sockmgr.config.spec import Exec, Spec
from sockmgr.errors import ControlError
from sockmgr.fleet.history import UNCHANGED, Kept, Origin, brought_back
from sockmgr.launch.executable import runs
from sockmgr.log import Log
from sockmgr.manager.asker import ASKER
from sockmgr.manager.service.memory_check import MEASURED, fitting
from sockmgr.manager.service.service import Service
from sockmgr.manager.services import Services

log = Log("sockmgr")


async def roll_back(
    services: Services, name: str, to: int | None, progress: Callable[[Progress], None]
) -> list[Verdict]:
    """Bring back generation `to` of a service, as it was resolved then; return the one verdict.

    Without `to` that is the one before; without a name the service is the only one. Raises
    ControlError if that cannot be, and then nothing has changed.
    """
    try:
        return [await _roll_back(_meant(services, name), to, progress)]
    except ControlError as error:
        log.error("rollback refused", service=name, error=error.what)
        raise


def _meant(services: Services, name: str) -> Service:
    if not name and len(services.by_name) > 1:
        raise ControlError(
            f"there are {len(services.by_name)} services, and each goes back by itself",
            means=UNCHANGED,
            do=f"name one: {', '.join(services.by_name)}",
        )
    return services.find(name or next(iter(services.by_name), ""))


async def _roll_back(
    service: Service, to: int | None, progress: Callable[[Progress], None]
) -> Verdict:
    number, kept, spec = _chosen(service, to)
    await service.past.check_name(number, kept)
    # Not before the name: that may have taken a while, and memory is short when it is used.
    (spec,) = await fitting([spec], {service.name: service.processes.newest(MEASURED)})
    # Others may have asked for something meanwhile.
    if _chosen(service, to)[:2] != (number, kept):
        raise ControlError("another generation has come meanwhile", means=UNCHANGED, do="try again")
    origin = Origin(kind="rollback", by=ASKER.get(), to=number)
    log.info("rolling back", service=service.name, to=number, directory=spec.cwd, by=origin.by)
    return await service.reload(spec, progress, origin=origin)


def _chosen(service: Service, to: int | None) -> tuple[int, Kept, Spec]:
    # If it were combined with a reload, one of the two would get a verdict on what it did not want.
    if service.rolls:
        raise ControlError(
            f"a rollout of {service.name} is under way",
            means=UNCHANGED,
            do="wait for its verdict, or take it back by `sockmgr abort`",
        )
    current = service.fleet.current
    # Each generation that was committed is known from the moment in which it was.
    number, kept = service.past.history.target(current, to)
    assert current is not None  # noqa: S101 - without one nothing was committed
    if missing := next(_missing(kept.spec), ""):
        raise ControlError(
            f"generation {number} cannot be brought back: {missing} is gone",
            means=f"{UNCHANGED}: generation {current.number} goes on",
            do="put it back, or choose another one of `sockmgr history` with --to",
        )
    return number, kept, brought_back(number, kept.spec, current.spec)


def _missing(spec: Spec) -> Iterator[str]:
    """Yield what a worker of this spec could not be started without, and is not there."""
    # access(2) first: Path.is_dir() raises where a directory above may not be entered.
    if not (os.access(spec.cwd, os.X_OK, effective_ids=True) and Path(spec.cwd).is_dir()):
        yield f"its directory {spec.cwd}"
    # All else shows when a worker starts, and is a reason to abort: with the words of the worker.
    programs = [spec.executable]
    if isinstance(spec.ready, Exec) and spec.ready.executable:
        programs.append(spec.ready.executable)
    yield from (f"its program {program}" for program in programs if not runs(Path(program)))
