"""Decisions about the rollout under way: its canary is promoted, or it is taken back as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from sockmgr.api.records import EventKind
from sockmgr.api.types import Verdict
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Phase, Promote, TakeBack
from sockmgr.log import Log
from sockmgr.manager.asker import ASKER
from sockmgr.manager.service.service import Service

log = Log("sockmgr")

UNCHANGED = "nothing was changed"
LONGEST_REASON = 500  # characters


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Have whatever is refused meanwhile say that nothing was changed, if it says nothing else."""
    try:
        yield
    except SockmgrError as error:
        error.means = error.means or f"{UNCHANGED}: what serves goes on"
        raise


async def promote(services: Mapping[str, Service], name: str) -> Verdict:
    """Have the canary of a service ("": of the only one) go on as if proven; return the verdict.

    Raises ControlError if there is none.
    """
    service, trial = _under_way(services, name, "begin a canary by `sockmgr reload --canary 10%`")
    if trial.phase is not Phase.CANARY or not trial.canary:
        raise ControlError(
            f"generation {trial.number} of {service.name} is no canary now: "
            f"it is {_stage(service, trial)}",
            means=UNCHANGED,
            do="wait for its verdict, or take it back by `sockmgr abort`",
        )
    log.info(EventKind.CANARY_PROMOTED, service=service.name, generation=trial.number,
             by=ASKER.get())  # fmt: skip
    # First, or the verdict might come before anybody waits for it here. If the generation ends by
    # something else meanwhile, its verdict says so, and the promotion is about nothing.
    verdict = service.join(trial)
    service.put(Promote(generation=trial.number))
    return await verdict


async def abort(services: Mapping[str, Service], name: str, reason: str) -> Verdict:
    """Take back the rollout of a service ("": the only one that has one); return the verdict.

    Raises ControlError if none is under way.
    """
    instead = "`sockmgr rollback` brings back what was committed before"
    service, trial = _under_way(services, name, instead)
    # The reason is somebody's, and goes into records and verdicts, which are lines.
    told = " ".join(reason.split())[:LONGEST_REASON]
    why = f"taken back by {ASKER.get()}" + (f": {told}" if told else "")
    verdict = service.join(trial)
    service.put(TakeBack(generation=trial.number, why=why))
    return await verdict


def refuse_if_held(services: Mapping[str, Service]) -> None:
    """Raise ControlError if a canary waits for somebody: then no rollout may end for days."""
    for service in services.values():
        trial = service.fleet.trial
        # Also one that boots still: it would be held before the upgrade had waited for its verdict.
        if trial and trial.canary and trial.canary.hold:
            raise ControlError(
                f"a canary of {service.name} is held, and waits for somebody's decision",
                means=UNCHANGED,
                do=f"first say `sockmgr promote {service.name}` or `sockmgr abort {service.name}`",
            )


def _under_way(
    services: Mapping[str, Service], name: str, instead: str
) -> tuple[Service, Generation]:
    """Return the rollout that is meant; if there is none, raise ControlError with what to do."""
    if name and name not in services:
        raise ControlError(f"there is no service {name}", do=f"there is: {', '.join(services)}")
    found = [(service, service.fleet.trial) for service in services.values() if service.fleet.trial]
    if name:
        found = [(service, trial) for service, trial in found if service.name == name]
    match found:
        case [(service, Generation() as trial)]:
            return service, trial
        case []:
            current = services[name].fleet.current if name else None
            serves = f"; generation {current.number} serves" if current else ""
            where = f"of {name} " if name else ""
            raise ControlError(
                f"no rollout {where}is under way{serves}", means=UNCHANGED, do=instead
            )
        case _:
            names = ", ".join(service.name for service, _ in found)
            raise ControlError(
                f"{len(found)} rollouts are under way", means=UNCHANGED, do=f"name one: {names}"
            )


def _stage(service: Service, trial: Generation) -> str:
    run = service.fleet.hook
    if run and run.generation == trial.number:
        return f"waiting for its hook {run.moment}"
    if trial.phase is Phase.PROBATION:
        return "cut over already, and on probation"
    if trial.canary:
        return "booting, and has no share yet"
    return "cut over as soon as all of its workers are ready"
