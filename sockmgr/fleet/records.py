"""What a fleet knows at the instant of its last fact: generations, workers, what is fed and owed.

Whoever only looks at a fleet takes these records; only the fleet itself changes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Set

from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.leases import Leases
from sockmgr.fleet.messages import Reload, WorkerExited, WorkerId
from sockmgr.fleet.targets import Targets


class FleetRecords:
    """The records of one service's fleet, and the questions that they answer."""

    def __init__(self) -> None:
        self.generations: dict[int, Generation] = {}
        self.current: Generation | None = None
        self.trial: Generation | None = None
        self.pending: Reload | None = None
        self.pending_requests: tuple[int, ...] = ()
        self.fed: tuple[tuple[int, int], ...] = ()
        self.unquiet: dict[int, float] = {}  # lease no longer fed -> since when
        self.feed_again = math.inf
        self.stopping_since: float | None = None
        self.stopped = False
        self.served = False
        self.last = 0
        self._now = 0.0
        self._breathe = False

    @property
    def deadline(self) -> float:
        """The instant at which a Tick is due; inf when only a fact can change anything."""
        if self._breathe:
            return self._now
        return min(self._deadlines(), default=math.inf)

    @property
    def stopping(self) -> bool:
        """Whether everything is to stop."""
        return self.stopping_since is not None

    @property
    def leases(self) -> Set[int]:
        """The leases that somebody has, that are fed, or that may still hold connections."""
        shared = {each.lease for each in self.generations.values() if each.lease is not None}
        own = {worker.lease for worker in self.workers()}
        return shared | own | self.unquiet.keys() | dict(self.fed).keys()

    def workers(self) -> Iterator[Worker]:
        """Every living worker, oldest generation first."""
        for generation in self.generations.values():
            yield from generation.workers.values()

    @property
    def starves(self) -> bool:
        """Whether it is to be told if ClientsWait: nobody is ready, and the next start is far."""
        return bool(self._targets().starving)

    @property
    def finishing(self) -> int:
        """How many workers are to end now, or as soon as they may be told: max_draining."""
        return sum(len(each.workers) for each in self._targets().too_many())

    def recycles(self, fact: WorkerExited, now: float) -> bool:
        """Tell, before it is handled, whether this end is no fault: the worker had served."""
        worker = self._find(fact.worker)
        return worker is not None and self._leases().recycles(worker, fact, now)

    @property
    def serving(self) -> Generation | None:
        """The generation that serves, or the first one, which is about to."""
        return self.current or self.trial

    def _targets(self) -> Targets:
        return Targets(
            generations=self.generations,
            current=self.current,
            trial=self.trial,
            stopping_since=self.stopping_since,
            now=self._now,
        )

    def _leases(self) -> Leases:
        return Leases.of(self._targets(), fed=self.fed, unquiet=self.unquiet)

    def _find(self, id: WorkerId) -> Worker | None:
        generation = self.generations.get(id.generation)
        return generation.workers.get(id.slot) if generation else None

    def _deadlines(self) -> Iterator[float]:
        for worker in self.workers():
            yield worker.deadline
        if self.stopping:
            yield from (at for at in self._leases().stop_deadlines() if at > self._now)
            return
        yield self.feed_again
        if self.trial:
            yield self.trial.deadline
        leases = self._leases()
        later = (*leases.deadlines(), *leases.targets.deadlines())
        yield from (instant for instant in later if instant > self._now)
