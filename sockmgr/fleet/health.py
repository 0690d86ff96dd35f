"""Workers that are to be replaced, and those that fail their probes: one is replaced, one waits.

When what ails a worker is elsewhere (a database is down), its successor is no better. So the next
one is replaced only after some worker was seen to be healthy.
"""

from __future__ import annotations

from operator import attrgetter

from sockmgr.fleet.generation import Generation
from sockmgr.fleet.limits import Wear
from sockmgr.fleet.messages import Health, Hung, Recycle, State
from sockmgr.fleet.records import FleetRecords
from sockmgr.fleet.roster import useful
from sockmgr.fleet.targets import Targets


def see(fleet: FleetRecords, fact: Health) -> None:
    """Note how a worker is; one on trial condemns its generation by being unhealthy."""
    worker = fleet.find(fact.worker)
    if worker is None or worker.state is not State.READY:
        return
    worker.be_unhealthy(fact.why)
    generation = fleet.generations[fact.worker.generation]
    generation.doubtful = generation.doubtful and bool(fact.why)
    if fact.why and generation is fleet.trial:
        # There is a generation to go back to, which did not fail.
        generation.condemn(f"worker {fact.worker} is unhealthy: {fact.why}", fact.worker)


def replace(fleet: FleetRecords, fact: Recycle | Hung) -> None:
    """Have a worker replaced: somebody wants it, or it hangs, or in its turn, as it is worn."""
    worker, trial = fleet.find(fact.worker), fleet.trial
    if worker is None or not worker.active:
        return
    if isinstance(fact, Recycle) and fact.limit:
        worker.wear_out(Wear(limit=fact.limit, at=fleet.now, why=fact.why))
        return
    worker.be_replaced(fact.why, hung=isinstance(fact, Hung))
    if isinstance(fact, Hung) and trial and trial.number == worker.id.generation:
        # Its code is at fault: a successor would hang, too.
        trial.condemn(f"worker {worker.id} {fact.why}", worker.id)


def heal(fleet: FleetRecords, targets: Targets) -> None:
    """Have a worker replaced that is unhealthy, the oldest one, if it is time for one."""
    for each in targets.generations.values():
        if each.roster.unhealthy:
            _keep_the_healthy(each, targets)
    generation = fleet.current
    if generation is None or generation.doubtful or fleet.stopping:
        return
    roster = generation.roster
    # One that is being replaced, for whatever reason, counts as well: one slot at a time.
    if roster.unhealthy and not roster.replaced:
        generation.doubtful = True
        worker = min(roster.unhealthy.values(), key=attrgetter("arrival"))
        worker.be_replaced(worker.unhealthy, hung=True)


def _keep_the_healthy(generation: Generation, targets: Targets) -> None:
    """Let no worker go for others that are all unhealthy: one of those is replaced in its stead."""
    roster, target = generation.roster, targets.target(generation)
    while roster.replaced and 0 < target <= useful(roster.members) and not targets.exclusive:
        ill, stays = roster.members[0], roster.replaced[0]
        if not ill.unhealthy or stays.useless or stays.unhealthy:
            return
        generation.doubtful = True
        ill.worker.be_replaced(ill.worker.unhealthy)
