"""Workers that have reached a limit of their spec: who is recycled, and when.

One at a time, when all others serve and no rollout is under way; the next one when the one before
has ended. A limit that is too low for any worker would have each successor recycled as soon as it
is ready. So who reaches one as early as that puts off the next, longer each time.
"""

from __future__ import annotations

from sockmgr.fleet.generation import Generation
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import Recycled
from sockmgr.fleet.records import FleetRecords

EARLY = 60.0  # a worker that reaches a limit within so many seconds had no time to be worn
PAUSE, PAUSE_MAX = 60.0, 3600.0  # seconds until the next one, after the first early one and at most


def turn(fleet: FleetRecords) -> list[Recycled]:
    """Have the worker recycled that reached its limit first, if it is time for one."""
    generation = fleet.current
    if generation is None or not generation.roster.worn or not _may(fleet, generation):
        return []
    worker, worn = next(iter(generation.roster.worn.items()))
    worker.be_replaced(worn.why)
    # Who asks for an age of half a minute gets that.
    is_early = worn.limit is not Limit.AGE and worn.at - worker.ready_at < EARLY
    generation.early = early = generation.early + 1 if is_early else 0
    pause = min(PAUSE_MAX, PAUSE * 2.0 ** min(early - 1, 6)) if early else 0.0
    generation.recycle_from = fleet.now + pause
    limit, why = worn.limit, worn.why
    return [Recycled(worker=worker.id, limit=limit, why=why, early=early, pause=pause)]


def _may(fleet: FleetRecords, generation: Generation) -> bool:
    busy = fleet.stopping or fleet.trial or fleet.pending
    # Whoever is being replaced, drains or is missing, for whatever reason: it is one slot.
    whole = generation.full and len(generation.workers) == generation.wanted
    return whole and not busy and fleet.now >= generation.recycle_from
