"""Which queues are fed, which queue a new worker gets, and which must not be left yet.

A *lease* is the number of a queue in the pool of each listener. The workers of a generation share
one, or each of them holds its own. Reads the records of a fleet and changes none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sockmgr.config.spec import Accept, Spec
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.messages import Phase, State, WorkerExited
from sockmgr.fleet.targets import Targets

RESCUE_DELAY = 0.5  # a queue left with connections and nobody to take them, this long


@dataclass(frozen=True, slots=True)
class Opening:
    """A place for a new worker: its lease, and whether it is to empty that and nothing else."""

    lease: int
    rescue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """A view of a fleet at one instant: `fed` are lease and weight, `unquiet` since when.

    `holders` are the living workers by lease, as they were when the view was taken.
    """

    targets: Targets
    fed: tuple[tuple[int, int], ...]
    unquiet: Mapping[int, float]
    holders: Mapping[int, list[Worker]]

    @classmethod
    def of(
        cls, targets: Targets, *, fed: tuple[tuple[int, int], ...], unquiet: Mapping[int, float]
    ) -> Leases:
        """Take the view."""
        holders: dict[int, list[Worker]] = {}
        for worker in targets.workers():
            holders.setdefault(worker.lease, []).append(worker)
        return cls(targets=targets, fed=fed, unquiet=unquiet, holders=holders)

    # --- Who is fed ------------------------------------------------------------------------------

    def to_feed(self) -> tuple[tuple[int, int], ...]:
        """Return the leases that get new connections, with weights, the fallback first.

        Never nothing: when nobody can take them they wait in one queue, which the next worker gets.
        """
        weights: dict[int, int] = {}
        for generation in self._serving():
            for lease, weight in self._shares(generation):
                weights[lease] = weights.get(lease, 0) + weight
        if len(weights) == 1:
            weights = dict.fromkeys(weights, 1)
        if fallback := self.targets.current or self.targets.trial:
            weights = weights or {self._waiting(fallback): 1}
        return tuple(weights.items())

    def _serving(self) -> list[Generation]:
        targets, trial = self.targets, self.targets.trial
        tried = trial is not None and trial.phase is Phase.PROBATION
        # One whose workers were all recycled makes way until it is whole again.
        if trial and tried and trial.ready and (trial.full or trial.served & dict(self.fed).keys()):
            return [trial]
        rolling = [trial] if trial and targets.mixing and not (tried and trial.instant) else []
        retiring = [g for g in targets.generations.values() if g.phase is Phase.RETIRING]
        # Who is to go is not fed: its queue must be empty before it is told.
        candidates = filter(None, (targets.current, *rolling, *retiring))
        serving = [g for g in candidates if g.ready and targets.target(g)]
        # Better one that is not proven than nobody.
        return serving or ([trial] if trial and trial.ready else [])

    def _shares(self, generation: Generation) -> list[tuple[int, int]]:
        if generation.lease is not None:
            return [(generation.lease, generation.ready)]
        return [(w.lease, 1) for w in self.targets.staying(generation)]

    def _waiting(self, generation: Generation) -> int:
        if generation.lease is not None:
            return generation.lease
        if self.fed:
            return self.fed[0][0]
        return next(itertools.chain(self._left(), self._free()))

    # --- Who gets which --------------------------------------------------------------------------

    def for_all(self, spec: Spec) -> int | None:
        """Return the lease that the workers of a new generation are to share; None: each its own.

        What waits in a queue that nobody can answer is left to the successor.
        """
        if spec.accept is not Accept.SHARED:
            return None
        current, alone = self.targets.current, spec.rollout.exclusive
        if current and self._answers(current) and not alone:
            return next(self._free())
        if current and current.lease is not None:
            return current.lease
        left = [lease for lease, _ in self.fed] if alone or current is None else self._left()
        return next(itertools.chain(left, self._free()))

    def openings(self, generation: Generation) -> list[Opening]:
        """Return the places of the workers that `generation` is to get now."""
        targets = self.targets
        if targets.waits(generation):
            return []
        own, rescues = self._own(generation, targets.missing(generation)), self._rescues(generation)
        left = [lease for lease in self._abandoned() if lease not in own] if rescues else []
        return [*(Opening(n, rescue=False) for n in own), *(Opening(n, rescue=True) for n in left)]

    def _own(self, generation: Generation, number: int) -> list[int]:
        if generation.lease is not None:
            return [generation.lease] * number
        # First the queues of the dead: somebody may wait there.
        left = self._left() if self._inherits(generation) else []
        return list(itertools.islice(itertools.chain(left, self._free()), number))

    def _inherits(self, generation: Generation) -> bool:
        """Whether its workers may answer, when ready, what came before them."""
        targets = self.targets
        if generation is not targets.trial or targets.mixing:
            return True
        return not (targets.current and targets.current.ready)

    def _left(self) -> list[int]:
        """The leases in which somebody may wait, and from which nobody takes any more."""
        alive = (w for w in self.targets.workers() if w.state is not State.KILLED)
        held = {w.lease for w in alive if not w.leaving}
        if not self.targets.exclusive:
            held |= {g.lease for g in self.targets.generations.values() if g.lease is not None}
        return [n for n in (*dict(self.fed), *self.unquiet) if n not in held]

    def _free(self) -> Iterator[int]:
        taken = {g.lease for g in self.targets.generations.values()}
        taken |= {w.lease for w in self.targets.workers()} | {*self.unquiet} | {*dict(self.fed)}
        return (n for n in itertools.count() if n not in taken)

    def _rescues(self, generation: Generation) -> bool:
        alone = self.targets.exclusive or generation.spec.rollout.exclusive
        return generation is self.targets.current and bool(generation.ready) and not alone

    def _abandoned(self) -> list[int]:
        """Leases with connections that nobody is left to take: the current generation must."""
        now = self.targets.now
        late = [n for n, since in self.unquiet.items() if now >= since + RESCUE_DELAY]
        return [lease for lease in late if not self._users(lease)]

    # --- Who has served --------------------------------------------------------------------------

    def recycles(self, worker: Worker, fact: WorkerExited, now: float) -> bool:
        """Tell whether a worker ended by itself, and without a fault."""
        clean = self.targets.generations[worker.id.generation].spec.clean_exits
        unasked = worker.active or worker.leaving
        return unasked and fact.status in clean and self.has_served(worker, now, took=fact.took)

    def has_served(self, worker: Worker, now: float, *, took: bool) -> bool:
        """Tell whether a worker had work, so that it is no fault if it ends cleanly.

        `took`: somebody took what waited in its queue.
        """
        generation = self.targets.generations[worker.id.generation]
        others = (w for w in self.holders[worker.lease] if w is not worker)
        alone = not any(w.state is State.READY for w in others)
        return generation.has_served(worker, now, took=took, alone=alone)

    # --- Queues that are no longer fed -----------------------------------------------------------

    def keeps(self, lease: int) -> bool:
        """Whether the workers on this lease may not go yet: it is to become Quiet first."""
        if self.targets.stopping:
            return lease in self.unquiet and self.targets.now < self._stop_at(lease)
        return lease in self.unquiet and self.targets.now < self.late_at(lease)

    def _stop_at(self, lease: int) -> float:
        """Return when the workers on a lease are told to stop, though clients may wait there.

        Half of the time that they have to drain is left to them then; without a worker that serves
        there is nothing to wait for.
        """
        if not self._served(lease):
            return -math.inf
        numbers = {worker.id.generation for worker in self.holders[lease]}
        timeouts = (self.targets.generations[n].spec.drain_timeout for n in numbers)
        return self.unquiet[lease] + min(timeouts) / 2

    def stop_deadlines(self) -> Iterator[float]:
        """Yield the instants at which workers are told to stop at the latest."""
        yield from map(self._stop_at, self.unquiet)

    def late_at(self, lease: int) -> float:
        """Return when the workers on an unfed lease wait no longer for its Quiet."""
        generations = self.targets.generations
        if not self._served(lease) and (self._users(lease) or self._rescuers):
            return math.inf  # who boots has a deadline; who is not there yet will be sent
        numbers = {w.id.generation for w in self.holders.get(lease, ()) if w.active}
        numbers |= {n for n, g in generations.items() if g.lease == lease}
        timeouts = [generations[n].spec.drain_timeout for n in numbers]
        newest = self.targets.newest
        timeouts += [newest.spec.drain_timeout] if newest and not timeouts else []
        return self.unquiet[lease] + max(timeouts, default=0.0)

    def given_up_at(self, lease: int) -> float:
        """Return when to forget an unfed lease: not before a rescue worker had its time, too.

        Its own workers may live and yet accept nothing.
        """
        rescued = any(w.state is State.READY and w.rescue for w in self.holders.get(lease, ()))
        return self.late_at(lease) if rescued or not self._rescuers else math.inf

    def deadlines(self) -> Iterator[float]:
        """Yield the instants at which one of these answers changes though nothing happens."""
        current = self.targets.current
        for lease, since in self.unquiet.items():
            yield self.late_at(lease)
            if current and self._rescues(current) and not self._users(lease):
                yield max(since + RESCUE_DELAY, current.not_before)

    def _answers(self, current: Generation) -> bool:
        lease = current.lease
        return bool(current.ready) if lease is None else self._served(lease)

    def _served(self, lease: int) -> bool:
        return any(w.state is State.READY and not w.hung for w in self.holders.get(lease, ()))

    @property
    def _rescuers(self) -> bool:
        targets = self.targets
        wanted = any(g.wanted for g in (targets.current, targets.trial) if g)
        return bool(wanted and not targets.exclusive)

    def _users(self, lease: int) -> list[Worker]:
        """Return who takes from this queue, or will."""
        return [w for w in self.holders.get(lease, ()) if w.active and not w.hung]
