"""How many workers each generation is to have, given what there is: who is missing, who is to go.

Reads the records of a fleet and changes none: it is for the fleet to mend what differs. On which
queue anybody is, leases.py knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sockmgr.fleet.generation import HURRY, Generation, Worker
from sockmgr.fleet.messages import Phase, State

NOTICE = 0.5  # between two stop signals: of two that wait, a process gets one (signal(7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """A view of a fleet at one instant."""

    generations: Mapping[int, Generation]
    current: Generation | None
    trial: Generation | None
    stopping_since: float | None
    now: float

    @property
    def stopping(self) -> bool:
        """Whether everything is to stop."""
        return self.stopping_since is not None

    @property
    def exclusive(self) -> bool:
        """Whether no worker may run beside one of another generation."""
        return bool(self.newest and self.newest.spec.rollout.exclusive)

    @property
    def newest(self) -> Generation | None:
        """The generation that is to serve, soon or now."""
        return self.trial or self.current

    def workers(self) -> Iterator[Worker]:
        """Every living worker, oldest generation first."""
        for generation in self.generations.values():
            yield from generation.workers.values()

    # --- How many --------------------------------------------------------------------------------

    def target(self, generation: Generation) -> int:
        """Return the number of workers that `generation` is to have now."""
        current, trial = self.current, self.trial
        if self.stopping:
            return 0
        if generation.phase is Phase.RETIRING:
            return self._help(generation, current) if current else 0
        if current is None or trial is None or (trial.instant and not self.exclusive):
            return generation.wanted
        if generation is trial:
            return self._rolling(trial, current)
        left = 0 if self.exclusive else max(0, current.wanted - len(self.staying(trial)))
        if trial.phase is Phase.PROBATION:
            # Once cut over, the old generation gives way but grows no more.
            return min(left, len(current.members) + len(self._recycled(current)))
        return left

    def _help(self, generation: Generation, current: Generation) -> int:
        # A retiring generation helps out until enough others serve, but not for ever.
        served = len(self.staying(current))
        served += len(self.staying(self.trial)) if self.trial and self.mixing else 0
        late = self.now >= generation.deadline and served
        return 0 if late or self.exclusive else max(0, current.wanted - served)

    def _rolling(self, trial: Generation, current: Generation) -> int:
        if trial.phase is Phase.PROBATION:
            return trial.wanted
        surge = trial.spec.rollout.surge.above(trial.wanted)
        room = max(current.wanted, trial.wanted) + surge - len(current.members)
        # Too little room is no reason to end one that runs already.
        return min(trial.wanted, max(room, len(trial.members)))

    @property
    def mixing(self) -> bool:
        """Whether the generation on trial takes new connections already."""
        trial = self.trial
        return trial is not None and (trial.phase is Phase.PROBATION or not trial.instant)

    # --- Who is missing --------------------------------------------------------------------------

    @property
    def starving(self) -> list[Generation]:
        """The generations whose next start is put off, longer than clients should wait.

        None as long as anybody is ready.
        """
        if self.stopping or any(w.state is State.READY and not w.hung for w in self.workers()):
            return []
        generations = filter(None, (self.current, self.trial))
        return [g for g in generations if g.not_before > self.now + HURRY]

    def waits(self, generation: Generation) -> bool:
        """Whether `generation` may start nobody now."""
        return self.stopping or self.now < generation.not_before

    def missing(self, generation: Generation) -> int:
        """Return how many workers `generation` is to get now."""
        target = self.target(generation)
        if generation.spec.rollout.exclusive:
            others = any(w.id.generation != generation.number for w in self.workers())
            return 0 if others else max(0, target - len(generation.workers))
        trial = self.trial
        if trial and trial.phase is Phase.PROBATION and not (trial.instant or generation is trial):
            return 0  # what it lacks is being recycled, and serves on
        return max(0, target - len(generation.members))

    # --- Who is too much -------------------------------------------------------------------------

    def surplus(self, generation: Generation) -> Iterator[tuple[Worker, str]]:
        """Yield the workers of `generation` that are to go, and why."""
        target = self.target(generation)
        members = sorted(generation.members, key=lambda w: (w.state is State.STARTING, w.id.slot))
        why = self._why(generation)
        for worker in members[target:]:
            yield worker, why
        ready = sum(w.state is State.READY for w in members[:target])
        for worker in self._recycled(generation)[0 if self.exclusive else max(0, target - ready) :]:
            yield worker, worker.recycle
        for worker in generation.workers.values():
            if worker.active and worker.rescue:
                yield worker, "the queue it was started for is empty or given up"

    def staying(self, generation: Generation) -> list[Worker]:
        """Return the workers of `generation` that can take a connection and are not to go."""
        going = {worker.id for worker, _ in self.surplus(generation)}
        workers = generation.workers.values()
        ready = (w for w in workers if w.state is State.READY and not w.hung)
        return [w for w in ready if w.id not in going]

    def too_many(self) -> list[Generation]:
        """Return the generations, oldest first, that drain beyond what max_draining allows."""
        retiring = [g for g in self.generations.values() if g.phase is Phase.RETIRING and g.workers]
        draining = [g for g in retiring if not (g.ready and self.target(g))]
        if self.stopping or not draining:
            return []
        allowed = (self.current or draining[-1]).spec.rollout.max_draining
        return draining[: max(0, len(draining) - allowed)]

    def finish_at(self, worker: Worker) -> float:
        """Return when to tell a worker of one of them to end now; inf if that is done."""
        late = worker.state is not State.DRAINING or worker.finishing
        return math.inf if late else worker.since + NOTICE

    def _recycled(self, generation: Generation) -> list[Worker]:
        """Those that are being replaced, who is to go last first."""
        mine = [w for w in generation.workers.values() if w.active and not w.rescue]
        recycled = [w for w in mine if w.recycle]
        return sorted(
            recycled, key=lambda w: (w.state is State.STARTING or w.hung, -w.since, w.id.slot)
        )

    def _why(self, generation: Generation) -> str:
        if self.stopping:
            return "stop"
        if generation.fault:
            return "aborted"
        if self.newest and self.newest is not generation:
            return f"generation {self.newest.number} takes over"
        return "scaled down"

    def deadlines(self) -> Iterator[float]:
        """Yield the instants at which a target changes though nothing happens."""
        for generation in self.generations.values():
            if generation.phase is Phase.RETIRING and self.target(generation):
                yield generation.deadline
            elif self.missing(generation):
                yield generation.not_before
        for generation in self.too_many():
            yield from map(self.finish_at, generation.workers.values())
