"""A fleet as its records say that it was, for the manager that goes on with it. Pure."""

from __future__ import annotations

import math

from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.hooks import HookRun
from sockmgr.fleet.messages import Phase, Reload, State, WorkerId
from sockmgr.fleet.snapshot import (
    OF_GENERATION,
    OF_HOOK,
    OF_WORKER,
    GenerationSnapshot,
    ServiceSnapshot,
    WorkerSnapshot,
    same,
)

LENIENCE = 2.0  # seconds that a deadline is put off if it passed while there was no manager


def restore(service: ServiceSnapshot, now: float) -> Fleet:
    """Return the fleet that was recorded, at the instant `now`, to be told what changed since.

    Nobody waits for a verdict any more, and a stop that was under way is forgotten: who starts a
    manager wants it to run. What waited while there was no manager gets LENIENCE to be looked at.
    """
    fleet = Fleet()
    fleet.last, fleet.served = service.last, service.served
    fleet.feeds(service.fed, {lease: now for lease, _ in service.unquiet})
    for each in service.generations:
        _restore_one(fleet, each, now)
    fleet.current = fleet.generations.get(service.current)
    fleet.trial = fleet.generations.get(service.trial)
    # The change that was asked for is still wanted, though nobody waits for the verdict.
    if service.pending:
        fleet.pending = Reload(spec=service.pending, request=0, together=service.pending_together)
    if was := service.hook:
        fleet.hook = HookRun(**same(was, OF_HOOK), deadline=max(was.deadline, now + LENIENCE))
    fleet.down_since = service.down_since
    if fleet.down_since is not None:
        fleet.down_since += max(0.0, now + LENIENCE - fleet.lost_at)
    return fleet


def _restore_one(fleet: Fleet, each: GenerationSnapshot, now: float) -> None:
    generation = Generation(
        **same(each, OF_GENERATION),
        spec=each.spec,
        deadline=max(_or_never(each.deadline), now + LENIENCE),
        not_before=-math.inf if each.not_before is None else each.not_before,
        held_until=-math.inf if each.held_until is None else each.held_until,
        recycle_from=-math.inf if each.recycle_from is None else each.recycle_from,
        passed=frozenset(each.passed),
        roster=fleet.roster(),
    )
    fleet.add(generation)
    canary = generation.canary if generation.phase is Phase.CANARY else None
    if canary and canary.check and not generation.checked:
        # It ended with the manager that ran it, and the next one runs it from its beginning.
        generation.deadline = max(generation.deadline, now + canary.seconds)
    # In the order that they are written in, which is that of their arrival.
    for worker in each.workers:
        generation.roster.add(_restored_worker(worker, each.number, now))


def _restored_worker(was: WorkerSnapshot, generation: int, now: float) -> Worker:
    # A ready worker has its max_age as deadline, and nothing about that has to be looked at first.
    late = -math.inf if was.state is State.READY else now + LENIENCE
    return Worker(
        **same(was, OF_WORKER),
        id=WorkerId(generation, was.slot),
        deadline=max(_or_never(was.deadline), late),
        ready_at=_or_never(was.ready_at),
    )


def _or_never(instant: float | None) -> float:
    return math.inf if instant is None else instant
