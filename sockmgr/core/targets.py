"""What is wanted, given what there is: how many workers of each generation, which leases are fed.

Reads the records of a fleet and changes none: it is for the fleet to mend what differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sockmgr.core.generation import Generation, Worker
from sockmgr.core.model import Phase, Spec, State

RESCUE_DELAY = 0.5  # a queue left with connections and nobody to take them, this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """A view of a fleet at one instant."""

    generations: Mapping[int, Generation]
    current: Generation | None
    trial: Generation | None
    unquiet: Mapping[int, float]
    stopping: bool
    now: float

    @property
    def exclusive(self) -> bool:
        """Whether no worker may run beside one of another generation."""
        return bool(self._newest and self._newest.spec.rollout.exclusive)

    @property
    def _newest(self) -> Generation | None:
        return self.trial or self.current

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
        left = 0 if self.exclusive else max(0, current.wanted - trial.ready)
        if trial.phase is Phase.PROBATION:
            # Once cut over, the old generation gives way but grows no more.
            return min(left, len(current.members) + len(self._recycled(current)))
        return left

    def _help(self, generation: Generation, current: Generation) -> int:
        # A retiring generation helps out until enough others serve, but not for ever.
        served = current.ready + (self.trial.ready if self.trial and self._mixing else 0)
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
    def _mixing(self) -> bool:
        trial = self.trial
        return trial is not None and (trial.phase is Phase.PROBATION or not trial.instant)

    # --- Who is fed ------------------------------------------------------------------------------

    def leases(self) -> tuple[tuple[int, int], ...]:
        """Return the leases that get new connections, with weights, the fallback first."""
        weights: dict[int, int] = {}
        for generation in self._fed():
            weights[generation.lease] = weights.get(generation.lease, 0) + generation.ready
        if len(weights) == 1:
            weights = dict.fromkeys(weights, 1)
        if fallback := self.current or self.trial:
            weights = weights or {fallback.lease: 1}
        return tuple(weights.items())

    def _fed(self) -> list[Generation]:
        trial = self.trial
        if trial and trial.ready and trial.phase is Phase.PROBATION:
            return [trial]
        rolling = [trial] if trial and self._mixing else []
        retiring = [g for g in self.generations.values() if g.phase is Phase.RETIRING]
        # Who is to go is not fed: its queue must be empty before it is told.
        candidates = filter(None, (self.current, *rolling, *retiring))
        serving = [g for g in candidates if g.ready and self.target(g)]
        # Better one that is not proven than nobody.
        return serving or ([trial] if trial and trial.ready else [])

    # --- Who is missing --------------------------------------------------------------------------

    def missing(self, generation: Generation) -> list[int]:
        """Return the leases of the workers that `generation` is to get now."""
        if self.stopping or self.now < generation.not_before:
            return []
        target = self.target(generation)
        if generation.spec.rollout.exclusive:
            others = any(w.id.generation != generation.number for w in self._workers())
            return [] if others else [generation.lease] * (target - len(generation.workers))
        lacking = [generation.lease] * (target - len(generation.members))
        trial = self.trial
        if trial and trial.phase is Phase.PROBATION and not (trial.instant or generation is trial):
            lacking = []  # what it lacks is being recycled, and serves on
        rescuing = generation is self.current and generation.ready and not self.exclusive
        return lacking + (self._abandoned() if rescuing else [])

    def _abandoned(self) -> list[int]:
        """Leases with connections that nobody is left to take: the current generation must."""
        late = [n for n, since in self.unquiet.items() if self.now >= since + RESCUE_DELAY]
        return [lease for lease in late if not self._manned(lease)]

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
            if worker.active and worker.lease != generation.lease:
                yield worker, "the queue it was started for is empty or given up"

    def too_many(self) -> list[Generation]:
        """Return the generations, oldest first, that drain beyond what max_draining allows."""
        retiring = [g for g in self.generations.values() if g.phase is Phase.RETIRING and g.workers]
        draining = [g for g in retiring if not (g.ready and self.target(g))]
        if self.stopping or not draining:
            return []
        allowed = (self.current or draining[-1]).spec.rollout.max_draining
        return draining[: max(0, len(draining) - allowed)]

    def _recycled(self, generation: Generation) -> list[Worker]:
        """Those that are being replaced, who is to go last first."""
        mine = [w for w in generation.workers.values() if w.active and w.lease == generation.lease]
        recycled = [w for w in mine if w.recycle]
        return sorted(recycled, key=lambda w: (w.state is State.STARTING, -w.since, w.id.slot))

    def _why(self, generation: Generation) -> str:
        if self.stopping:
            return "stop"
        if generation.fault:
            return "aborted"
        if self._newest and self._newest is not generation:
            return f"generation {self._newest.number} takes over"
        return "scaled down"

    # --- Queues that are no longer fed -----------------------------------------------------------

    def keeps(self, lease: int) -> bool:
        """Whether the workers on this lease may not go yet: it is to become Quiet first."""
        return lease in self.unquiet and self.now < self.late_at(lease)

    def late_at(self, lease: int) -> float:
        """Return when the workers on an unfed lease wait no longer for its Quiet."""
        users = [w for w in self._workers() if w.active and w.lease == lease]
        if not self._served(lease) and (users or self._rescuers):
            return math.inf  # who boots has a deadline; who is not there yet will be sent
        numbers = {w.id.generation for w in users}
        numbers |= {n for n, g in self.generations.items() if g.lease == lease}
        timeouts = [self.generations[n].spec.drain_timeout for n in numbers]
        timeouts += [self._newest.spec.drain_timeout] if self._newest and not timeouts else []
        return self.unquiet[lease] + max(timeouts, default=0.0)

    def given_up_at(self, lease: int) -> float:
        """Return when to forget an unfed lease: not before a rescue worker had its time, too.

        Its own workers may live and yet accept nothing.
        """
        rescued = any(
            w.state is State.READY and w.lease == lease != self.generations[w.id.generation].lease
            for w in self._workers()
        )
        return self.late_at(lease) if rescued or not self._rescuers else math.inf

    def lease_for(self, spec: Spec, fed: tuple[tuple[int, int], ...]) -> int:
        """Return the lease for the workers of a new generation that runs `spec`."""
        # What waits in a queue that nobody can answer is left to the successor.
        if self.current and (spec.rollout.exclusive or not self._served(self.current.lease)):
            return self.current.lease
        if self.current is None and fed:
            return fed[0][0]
        taken = {g.lease for g in self.generations.values()}
        taken |= {w.lease for w in self._workers()} | set(self.unquiet)
        return next(n for n in range(len(taken) + 1) if n not in taken)

    def _served(self, lease: int) -> bool:
        return any(w.state is State.READY and w.lease == lease for w in self._workers())

    def deadlines(self) -> Iterator[float]:
        """Yield the instants at which a target changes though nothing happens."""
        for lease, since in self.unquiet.items():
            yield self.late_at(lease)
            if not self._manned(lease):
                yield since + RESCUE_DELAY
        for generation in self.generations.values():
            if generation.phase is not Phase.RETIRING:
                yield generation.not_before
            elif self.target(generation):
                yield generation.deadline

    @property
    def _rescuers(self) -> bool:
        wanted = any(g.wanted for g in (self.current, self.trial) if g)
        return bool(self.current and wanted and not self.exclusive)

    def _manned(self, lease: int) -> bool:
        return any(w.active and w.lease == lease for w in self._workers())

    def _workers(self) -> Iterator[Worker]:
        for generation in self.generations.values():
            yield from generation.workers.values()
