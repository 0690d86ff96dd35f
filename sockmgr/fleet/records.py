"""What a fleet knows at the instant of its last fact: generations, workers, what is fed and owed.

Whoever only looks at a fleet takes these records; only the fleet itself changes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType

from sockmgr.config.spec import Address
from sockmgr.fleet import hooks
from sockmgr.fleet.deadlines import Deadlines
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.lease_book import Fed, LeaseBook
from sockmgr.fleet.leases import Leases
from sockmgr.fleet.messages import Fact, Reload, State, WorkerExited, WorkerId, WorkerReady
from sockmgr.fleet.roster import Roster
from sockmgr.fleet.targets import Targets


class FleetRecords:
    """The records of one service's fleet, and the questions that they answer.

    Each answer costs O(generations), which are as many as reloads whose workers still drain.
    """

    def __init__(self) -> None:
        self.generations: dict[int, Generation] = {}
        self.current: Generation | None = None
        self.trial: Generation | None = None
        self.pending: Reload | None = None
        self.pending_requests: tuple[int, ...] = ()
        self.hook: hooks.HookRun | None = None
        self.feed_again = math.inf
        self.stopping_since: float | None = None
        self.down_since: float | None = None  # nobody serves, and no rollout is to change that
        self.stopped = False
        self.served = False
        self.last = 0
        self._book = LeaseBook()
        # One heap for the workers of all generations: they are asked for the next instant together.
        self._late: Deadlines[Worker] = Deadlines()
        self._now = 0.0
        self._breathe = False

    def roster(self) -> Roster:
        """Return the roster of a new generation, whose workers count here as well."""
        return Roster(self._book, self._late)

    def add(self, generation: Generation) -> None:
        """Know one more generation, which has its roster from here."""
        self.generations[generation.number] = generation
        # The lease is in use from now on, though no worker has come to it yet.
        if generation.lease is not None:
            self._book.use(generation.lease)

    def feeds(self, fed: Fed, unquiet: Mapping[int, float]) -> None:
        """Know, before anything else, what a manager before us fed, and what it fed no longer."""
        # Not by Feed and Quiet: nothing has happened, and the shell owes nothing for it.
        self._book.feed(fed)
        for lease, since in list(unquiet.items()):
            if lease in self._book.weights:  # in a stop it was both, and nobody goes on with that
                self._book.forget(lease)
            else:
                self._book.leave(lease, since)

    def inherit(self, leases: Set[int], now: float) -> None:
        """Know queues, which no service has any more, where clients of ours may wait."""
        for lease in leases - self.leases:
            self._book.leave(lease, now)

    def see_down(self) -> None:
        """Know since when nobody serves; O(generations)."""
        # A rollout has a deadline of its own, and its end begins a new time for its workers.
        # So has the wait for services that it is after, and nobody is started before that is over.
        held = self.trial or self.stopping or self.is_held
        wanted = self.current and self.current.wanted and not held
        if not wanted or self.serves:
            self.down_since = None
        elif self.down_since is None:
            self.down_since = self._now

    def remove(self, generation: Generation) -> None:
        del self.generations[generation.number]
        if generation.lease is not None:
            self._book.unuse(generation.lease)

    @property
    def deadline(self) -> float:
        """The instant at which a Tick is due; inf when only a fact can change anything."""
        # More are to be started, once the shell has dealt with other facts.
        if self._breathe:
            return self._now
        return min(self._deadlines(), default=math.inf)

    @property
    def now(self) -> float:
        """The instant of the last fact."""
        return self._now

    @property
    def stopping(self) -> bool:
        return self.stopping_since is not None

    @property
    def lost_at(self) -> float:
        """The instant at which it will have been down for `when_down`; inf if nothing says so yet.

        A hook that runs before the first workers has a timeout of its own, and does not count: who
        ends a migration in the middle, to begin it again, may never see the end of it.
        """
        current, run = self.current, self.hook
        patience = current.spec.when_down if current else None
        if self.down_since is None or patience is None:
            return math.inf
        is_prepared = current and run and run.generation == current.number
        return math.inf if is_prepared else self.down_since + patience

    @property
    def down_for(self) -> float:
        """For how many seconds it has been down."""
        return 0.0 if self.down_since is None else self._now - self.down_since

    @property
    def is_lost(self) -> bool:
        """Whether it has been down for so long that the manager is to end."""
        return self._now >= self.lost_at

    @property
    def fed(self) -> Fed:
        """The leases that get new connections, each with its weight; the first is the fallback."""
        return self._book.fed

    @property
    def unquiet(self) -> Mapping[int, float]:
        """The leases that are no longer fed and may hold connections, each with its since when."""
        # Read-only: the book keeps several tables in step, so only it may change one.
        return MappingProxyType(self._book.unquiet)

    @property
    def leases(self) -> Set[int]:
        """The leases that somebody has, that are fed, or that may still hold connections."""
        return self._book.in_use

    def workers(self) -> Iterator[Worker]:
        """Every living worker, oldest generation first. O(n): once a rollout, not once a fact."""
        for generation in self.generations.values():
            yield from generation.workers.values()

    @property
    def is_beside_others(self) -> bool:
        """Whether it got listeners on which other services still had leases."""
        comes = self.pending is not None and self.pending.spec.foreign
        return bool(comes) or any(each.spec.foreign for each in self.generations.values())

    @property
    def foreign(self) -> frozenset[int]:
        """The leases that other services have on listeners that are ours as well."""
        return self._book.foreign

    def beside(self, foreign: frozenset[int], elsewhere: Set[Address]) -> None:
        """Know the leases that others have on listeners of ours, and whose clients they have."""
        self._book.foreign, self._book.elsewhere = foreign, elsewhere

    @property
    def held(self) -> Set[int]:
        """The leases that a living worker has."""
        return self._book.holders.keys()

    @property
    def booting(self) -> set[int]:
        """Those of them at which somebody boots. O(leases)."""
        holders = self._book.holders.items()
        return {n for n, kinds in holders if any(k.state is State.STARTING for k in kinds)}

    @property
    def living(self) -> int:
        """How many workers there are."""
        return sum(len(each.workers) for each in self.generations.values())

    def number(self, state: State) -> int:
        return sum(each.roster.number(state) for each in self.generations.values())

    @property
    def starves(self) -> bool:
        """Whether it is to be told if ClientsWait: nobody is ready, and the next start is far."""
        return bool(self._targets().starving)

    @property
    def finishing(self) -> int:
        """How many workers are to end now, or as soon as they may be told: max_draining."""
        return sum(len(each.workers) for each in self._targets().too_many())

    def lease_of(self, fact: Fact) -> int | None:
        """Return, before it is handled, the lease of the worker that is ready or has ended."""
        worker = self.find(fact.worker) if isinstance(fact, WorkerReady | WorkerExited) else None
        return worker.lease if worker else None

    def recycles(self, fact: WorkerExited, now: float) -> bool:
        """Tell, before it is handled, whether this end is no fault: the worker had served."""
        worker = self.find(fact.worker)
        return worker is not None and self._leases().recycles(worker, fact, now)

    def asks(self, id: WorkerId) -> bool:
        """Tell whether a worker that accepts has to pass a probe, if its spec has one, to be ready.

        It has to where only it and its like can answer. Where clients come already, somebody else
        may answer who is ready; and once its generation has served, a probe that stands behind
        clients who wait would tell nothing but that there are many.
        """
        worker = self.find(id)
        if worker is None or worker.lease not in self._book.weights:
            return worker is not None
        served = self.served and self.current is self.generations[id.generation]
        return not served and not any(kind.serves for kind in self._book.of(worker.lease))

    @property
    def is_coupled(self) -> bool:
        """Whether what other services do may let it go on, or take it back."""
        grouped = (self.trial and self.trial.together, self.pending and self.pending.together)
        return self.is_held or any(grouped)

    @property
    def is_held(self) -> bool:
        """Whether it starts nobody, since those that it is after do not serve yet."""
        going = filter(None, (self.current, self.trial))
        return any(each.held_until > self._now for each in going)

    @property
    def serving(self) -> Generation | None:
        """The generation that serves, or the first one, which is about to."""
        return self.current or self.trial

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing that it runs, nor anything that it is to run."""
        return not (self.current or self.trial or self.pending)

    @property
    def serves(self) -> bool:
        """Whether anybody is ready whom clients may meet. O(generations)."""
        return any(each.ready and each.may_be_met for each in self.generations.values())

    @property
    def share(self) -> int:
        """How many percent of the new connections a canary gets; 0 without one."""
        return self.trial.share if self.trial else 0

    def find(self, id: WorkerId) -> Worker | None:
        """Return the living worker of this id, if there is one."""
        generation = self.generations.get(id.generation)
        return generation.workers.get(id.slot) if generation else None

    def _targets(self) -> Targets:
        return Targets(
            generations=self.generations,
            current=self.current,
            trial=self.trial,
            stopping_since=self.stopping_since,
            now=self._now,
        )

    def _leases(self) -> Leases:
        return Leases.of(self._targets(), self._book)

    def _deadlines(self) -> Iterator[float]:
        yield self._late.first()
        yield from hooks.deadlines(self, self._now)
        leases = self._leases()
        # In a stop nothing is started, fed or tried any more: only workers and queues are due.
        if self.stopping:
            yield leases.book.until.first()
            return
        yield self.feed_again
        if self.is_held:
            going = filter(None, (self.current, self.trial))
            yield max(each.held_until for each in going)
        # One that waits for others of its group goes on by a fact, when they have come as far.
        if self.trial and self.trial.may(self.trial.gate_at(self._now)):
            yield self.trial.deadline
        # An instant that has passed was dealt with; kept here, it would ask for Ticks without end.
        worn = bool(self.current and self.current.roster.worn)
        turn = self.current.recycle_from if self.current and worn else math.inf
        later = (*leases.deadlines(), *leases.targets.deadlines(), self.lost_at, turn)
        yield from (instant for instant in later if instant > self._now)
