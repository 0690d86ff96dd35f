"""Workers come and go: who is late is ended, who is too many drained, who is missing started.

Each function returns the commands that are due now, and takes the steps in the workers' records
that go with them. How many there are to be, and on which queues, targets.py and leases.py know.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sockmgr.fleet.deadlines import Deadlines
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.leases import Leases, Opening
from sockmgr.fleet.limits import Limit, Wear
from sockmgr.fleet.messages import Drain, Finish, Kill, Spawn, State, WorkerId
from sockmgr.fleet.targets import Targets
from sockmgr.worker.deadline import FINISH

KILL_AGAIN = 10.0  # a process that outlives SIGKILL waits in the kernel; try again and say so
TOO_MANY = "too many generations are draining (max_draining)"


def expire(targets: Targets, deadlines: Deadlines[Worker]) -> list[Kill]:
    """Act on the deadlines of workers that have passed. O(those)."""
    # Sorted, since a heap has equal instants in any order and a replay must give the same commands.
    late = sorted(deadlines.due(targets.now), key=lambda w: (w.id.generation, w.arrival))
    return [command for worker in late for command in _overdue(worker, targets)]


def limit(targets: Targets) -> list[Drain | Finish]:
    """Have the workers of generations that drain beyond what max_draining allows end soon."""
    commands: list[Drain | Finish] = []
    now = targets.now
    for generation in targets.too_many():
        roster = generation.roster
        due = (*roster.active(), *roster.told.due(now))
        for worker in sorted(due, key=lambda worker: worker.arrival):
            # A stop signal comes first: programs that get two at once may end without draining.
            if worker.active:
                worker.become(State.DRAINING, now, now + generation.spec.drain_timeout)
                commands.append(Drain(worker=worker.id, why=TOO_MANY))
            else:
                worker.finish(now + FINISH)
                commands.append(Finish(worker=worker.id, why=TOO_MANY))
    return commands


def drain(leases: Leases) -> list[Drain]:
    """Drain each generation to its target."""
    targets, commands = leases.targets, []
    for generation in targets.generations.values():
        for worker in _leavers(generation, leases):
            # A queue that holds connections keeps its worker, for a while.
            useless = targets.stopping and worker.state is State.STARTING
            if useless or not leases.keeps(worker.lease):
                # The time in which those who waited were served is part of a stop's.
                since = targets.now if targets.stopping_since is None else targets.stopping_since
                deadline = since + generation.spec.drain_timeout
                worker.become(State.DRAINING, targets.now, deadline)
                commands.append(Drain(worker=worker.id, why=targets.why(worker)))
    return commands


def fill(leases: Leases, budget: int) -> tuple[list[Spawn], bool]:
    """Fill each generation to its target by at most `budget` workers; True: more are missing."""
    targets, more = leases.targets, False
    commands: list[Spawn] = []
    for generation in filter(None, (targets.current, targets.trial)):
        # Imports use a processor each: more at a time would only make all of them late.
        starting = generation.roster.number(State.STARTING)
        room = max(0, generation.spec.rollout.start_concurrency - starting)
        left = budget - len(commands)
        openings = leases.openings(generation, min(room, left + 1))
        commands += [_start(generation, opening, targets) for opening in openings[:left]]
        more = more or len(openings) > left
    return commands, more


def _leavers(generation: Generation, leases: Leases) -> list[Worker]:
    """Return the workers of the surplus of which some may be drained now. O(those), as a rule."""
    targets, roster = leases.targets, generation.roster
    useless = targets.stopping and roster.number(State.STARTING)
    if generation.lease is not None and not (useless or roster.rescues):
        # All wait for one queue. A thousand need not be asked for it at each fact until then.
        return [] if leases.keeps(generation.lease) else targets.surplus(generation)
    surplus = targets.surplus(generation)
    return surplus if useless else leases.may_go(surplus)


def kill(worker: Worker, why: str, now: float) -> list[Kill]:
    """Kill one worker, unless that was done."""
    if worker.state is State.KILLED:
        return []
    worker.become(State.KILLED, now, now + KILL_AGAIN)
    return [Kill(worker=worker.id, why=why)]


def kill_all(workers: Iterable[Worker], why: str, now: float) -> list[Kill]:
    """Kill all of these, but for those to which that was done."""
    return [command for worker in workers for command in kill(worker, why, now)]


def _overdue(worker: Worker, targets: Targets) -> list[Kill]:
    generation, now = targets.generations[worker.id.generation], targets.now
    match worker.state:
        case State.STARTING:
            why = f"not ready within {generation.spec.ready_timeout:g} s"
            # A late worker fails the generation on trial; the current one just tries again later.
            if generation is targets.trial:
                generation.condemn(f"worker {worker.id} was {why}", worker.id)
            generation.back_off(now, steady=False)
            return kill(worker, why, now)
        case State.READY:
            # The worker is not drained here: it serves until its turn, and its successor is ready.
            worker.put_off(math.inf)
            worker.wear_out(Wear(limit=Limit.AGE, at=now, why="max_age reached"))
            return []
        case State.DRAINING:
            late = f"not drained within {generation.spec.drain_timeout:g} s"
            return kill(worker, TOO_MANY if worker.finishing else late, now)
        case State.KILLED | State.GONE:
            worker.put_off(now + KILL_AGAIN)
            return [Kill(worker=worker.id, why="still there after SIGKILL")]


def _start(generation: Generation, opening: Opening, targets: Targets) -> Spawn:
    id = WorkerId(generation.number, generation.roster.free_slot())
    background = any(each.number(State.READY) for each in targets.rosters)
    spec, lease, now = generation.spec, opening.lease, targets.now
    worker = Worker(
        id=id, lease=lease, since=now, deadline=now + spec.ready_timeout, rescue=opening.rescue
    )
    generation.roster.add(worker)
    return Spawn(worker=id, spec=spec, lease=lease, background=background)
