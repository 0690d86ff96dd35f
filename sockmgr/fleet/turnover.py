"""Workers come and go: who is late is ended, who is too many drained, who is missing started.

Each function returns the commands that are due now, and takes the steps in the workers' records
that go with them. How many there are to be, and on which queues, targets.py and leases.py know.
"""

from __future__ import annotations

import math

from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.leases import Leases, Opening
from sockmgr.fleet.messages import Drain, Finish, Kill, Spawn, State, WorkerId
from sockmgr.fleet.targets import Targets
from sockmgr.worker.deadline import FINISH

KILL_AGAIN = 10.0  # a process that outlives SIGKILL waits in the kernel; try again and say so
TOO_MANY = "too many generations are draining (max_draining)"


def expire(targets: Targets) -> list[Kill]:
    """Act on the deadlines of workers that have passed."""
    late = [worker for worker in targets.workers() if targets.now >= worker.deadline]
    return [command for worker in late for command in _overdue(worker, targets)]


def limit(targets: Targets) -> list[Drain | Finish]:
    """Have the workers of generations that drain beyond what max_draining allows end soon."""
    commands: list[Drain | Finish] = []
    now = targets.now
    for generation in targets.too_many():
        for worker in generation.workers.values():
            if worker.active:
                worker.become(State.DRAINING, now, now + generation.spec.drain_timeout)
                commands.append(Drain(worker=worker.id, why=TOO_MANY))
            elif now >= targets.finish_at(worker):
                worker.finishing, worker.deadline = True, min(worker.deadline, now + FINISH)
                commands.append(Finish(worker=worker.id, why=TOO_MANY))
    return commands


def drain(leases: Leases) -> list[Drain]:
    """Drain each generation to its target."""
    targets, commands = leases.targets, []
    for generation in targets.generations.values():
        for worker, why in list(targets.surplus(generation)):
            # A queue that holds connections keeps its worker, for a while.
            useless = targets.stopping and worker.state is State.STARTING
            if useless or not leases.keeps(worker.lease):
                # The time in which those who waited were served is part of a stop's.
                since = targets.now if targets.stopping_since is None else targets.stopping_since
                deadline = since + generation.spec.drain_timeout
                worker.become(State.DRAINING, targets.now, deadline)
                commands.append(Drain(worker=worker.id, why=why))
    return commands


def fill(leases: Leases, budget: int) -> tuple[list[Spawn], bool]:
    """Fill each generation to its target by at most `budget` workers; True: more are missing."""
    targets, more = leases.targets, False
    commands: list[Spawn] = []
    for generation in filter(None, (targets.current, targets.trial)):
        starting = sum(w.state is State.STARTING for w in generation.workers.values())
        room = max(0, generation.spec.rollout.start_concurrency - starting)
        openings, left = leases.openings(generation)[:room], budget - len(commands)
        commands += [_start(generation, opening, targets) for opening in openings[:left]]
        more = more or len(openings) > left
    return commands, more


def kill(worker: Worker, why: str, now: float) -> list[Kill]:
    """Kill one worker, unless that was done."""
    if worker.state is State.KILLED:
        return []
    worker.become(State.KILLED, now, now + KILL_AGAIN)
    return [Kill(worker=worker.id, why=why)]


def _overdue(worker: Worker, targets: Targets) -> list[Kill]:
    generation, now = targets.generations[worker.id.generation], targets.now
    match worker.state:
        case State.STARTING:
            why = f"not ready within {generation.spec.ready_timeout:g} s"
            if generation is targets.trial:
                generation.fault = f"worker {worker.id} was {why}"
                generation.culprit = worker.id
            generation.back_off(now, steady=False)
            return kill(worker, why, now)
        case State.READY:
            worker.deadline, worker.recycle = math.inf, "max_age reached"
            return []
        case State.DRAINING:
            late = f"not drained within {generation.spec.drain_timeout:g} s"
            return kill(worker, TOO_MANY if worker.finishing else late, now)
        case State.KILLED | State.GONE:
            worker.deadline = now + KILL_AGAIN
            return [Kill(worker=worker.id, why="still there after SIGKILL")]


def _start(generation: Generation, opening: Opening, targets: Targets) -> Spawn:
    slot = next(n for n in range(1, len(generation.workers) + 2) if n not in generation.workers)
    id = WorkerId(generation.number, slot)
    background = any(w.state is State.READY for w in targets.workers())
    spec, lease, now = generation.spec, opening.lease, targets.now
    worker = Worker(
        id=id, lease=lease, since=now, deadline=now + spec.ready_timeout, rescue=opening.rescue
    )
    generation.workers[slot] = worker
    return Spawn(worker=id, spec=spec, lease=lease, background=background)
