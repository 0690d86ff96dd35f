"""Which queues are fed, which queue a new worker gets, and which must not be left yet.

A *lease* is the number of a queue in the pool of each listener. The workers of a generation share
one, or each of them holds its own. Reads the records of a fleet and changes none; what follows from
them is worked out when they change, and noted in the book.

One answer costs O(generations), and O(workers) only where the answer is a list of them: a Feed of
workers that have a lease each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import msgspec

from sockmgr.config.spec import Accept, Spec
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.lease_book import Fed, LeaseBook
from sockmgr.fleet.messages import Phase, State, WorkerExited
from sockmgr.fleet.targets import Targets

RESCUE_DELAY = 0.5  # a queue left with connections and nobody to take them, this long


class Opening(msgspec.Struct, frozen=True):
    """A place for a new worker: its lease, and whether it is to empty that and nothing else."""

    lease: int
    rescue: bool


class Leases(msgspec.Struct, frozen=True, kw_only=True):
    """A view of a fleet at one instant, by the `book` that is kept of its leases."""

    targets: Targets
    book: LeaseBook

    @classmethod
    def of(cls, targets: Targets, book: LeaseBook) -> Leases:
        """Take the view, and bring up to date what the book has noted."""
        leases = cls(targets=targets, book=book)
        leases._note_all()
        return leases

    # --- Who is fed ------------------------------------------------------------------------------

    def to_feed(self) -> Fed:
        """Return the leases that get new connections, with weights, the fallback first.

        Never nothing: when nobody can take them they wait in one queue, which the next worker gets.
        """
        # The list is long where each worker has a lease, and most facts leave it as it is.
        serving, targets = self._serving(), self.targets
        share = targets.trial.share if targets.trial else 0
        basis = share, *((g.number, g.roster.changes, *targets.kept(g)) for g in serving)
        if basis != self.book.shares_basis:
            self.book.shares_basis, self.book.shares = basis, self._all_shares(serving)
        shares, fallback = self.book.shares, targets.current or targets.trial
        if not shares and fallback and fallback.may_be_met:
            serving, shares = [fallback], ((self._waiting(fallback), 1),)
        beside = self._beside(serving) - dict(shares).keys()
        self.book.awaiting &= beside
        return (*shares, *((lease, 0) for lease in sorted(beside))) if beside else shares

    def _beside(self, serving: list[Generation]) -> set[int]:
        """Return the leases for clients of listeners that none of those that serve has.

        As where a generation that has not all of them is tried, or serves for want of better: such
        clients are for those who have the listener, or who will be started.
        """
        found, targets = set[int](), self.targets
        self.book.awaiting.clear()
        for met in (each for each in (targets.current, targets.trial) if each and each.is_met):
            if all(each.spec.listen == met.spec.listen for each in serving):
                continue
            has = (each.spec.addresses for each in serving)
            lacked = met.spec.addresses.difference(self.book.elsewhere, *has)
            if lacked and met.ready and targets.target(met):
                found.update(self._weights([met]))
            elif lacked:
                self.book.awaiting.add(self._waiting(met))
        return found | self.book.awaiting

    def _all_shares(self, serving: list[Generation]) -> Fed:
        trial = self.targets.trial
        weights = self._weights(serving)
        if trial and trial.share and trial in serving:
            old = self._weights([g for g in serving if g is not trial])
            # Where nobody else serves, a share of what comes is all of it.
            weights = shared(old, self._weights([trial]), trial.share) if old else weights
        # The weight of a single queue means nothing, but a change of it would cause a Feed.
        if len(weights) == 1:
            weights = dict.fromkeys(weights, 1)
        return tuple(weights.items())

    def _weights(self, generations: list[Generation]) -> dict[int, int]:
        weights: dict[int, int] = {}
        for generation in generations:
            if generation.lease is None:
                weights |= dict.fromkeys(self.targets.own_leases(generation), 1)
            else:
                weights[generation.lease] = weights.get(generation.lease, 0) + generation.ready
        return weights

    def _serving(self) -> list[Generation]:
        targets, trial = self.targets, self.targets.trial
        tried = trial is not None and trial.phase is Phase.PROBATION
        # One whose workers were all recycled makes way until it is whole again.
        if trial and tried and trial.ready and (trial.full or self._is_fed(trial)):
            return [trial]
        rolls = trial and targets.mixing and not (tried and trial.instant)
        rolling = [trial] if trial and (rolls or trial.share) else []
        retiring = [g for g in targets.generations.values() if g.phase is Phase.RETIRING]
        # Who is to go is not fed: its queue must be empty before it is told.
        candidates = filter(None, (targets.current, *rolling, *retiring))
        serving = [g for g in candidates if g.ready and targets.target(g) and g.may_be_met]
        # Better one that is not proven than nobody.
        return serving or ([trial] if trial and trial.ready and trial.may_be_met else [])

    def _is_fed(self, generation: Generation) -> bool:
        weights = self.book.weights
        return any(weights.get(w.lease) for w in generation.roster.active() if w.kind.serves)

    def _waiting(self, generation: Generation) -> int:
        if generation.lease is not None:
            return generation.lease
        # Where they waited before, so that one worker finds all of them; not where another
        # generation answers, which has not all of its listeners.
        others = (g for g in self.targets.generations.values() if generation.spec.removed(g.spec))
        theirs = {lease for each in others for lease in each.leases}
        before = itertools.chain(self.book.weights, generation.leases, self._left())
        mine = (lease for lease in before if lease not in theirs)
        return next(itertools.chain(mine, self._free(generation.spec)))

    # --- Who gets which --------------------------------------------------------------------------

    def for_all(self, spec: Spec) -> int | None:
        """Return the lease that the workers of a new generation are to share; None: each its own.

        What waits in a queue that nobody can answer is left to the successor.
        """
        if spec.accept is not Accept.SHARED:  # the queue of each worker is chosen when it starts
            return None
        current, alone = self.targets.current, spec.rollout.exclusive
        if current and self._answers(current) and not alone:
            return next(self._free(spec))
        # No worker answers at the current lease, or none will: the new generation inherits it.
        inherits = self._has_all_listeners(spec)
        lease = current.lease if current else None
        if lease is not None and inherits and lease not in spec.foreign:
            return lease
        left = list(self.book.weights) if alone or current is None else self._left()
        left = [lease for lease in left if inherits and lease not in spec.foreign]
        return next(itertools.chain(left, self._free(spec)))

    def _has_all_listeners(self, spec: Spec) -> bool:
        """Whether its workers can answer all who wait at the queues of the current generation."""
        current = self.targets.current
        return current is None or not current.spec.removed(spec)

    def _free(self, spec: Spec) -> Iterator[int]:
        """Yield the leases that nobody has: no worker here, and no other service, there."""
        foreign = spec.foreign | self.book.foreign
        return (lease for lease in self.book.free() if lease not in foreign)

    def openings(self, generation: Generation, most: int) -> list[Opening]:
        """Return the places of the workers that `generation` is to get now, `most` of them."""
        targets = self.targets
        if targets.waits(generation):
            return []
        missing = targets.missing(generation)
        own = self._own(generation, min(missing, most)) if missing else []
        left = self._abandoned() if self._rescues(generation) else []
        rescues = [lease for lease in left if lease not in own]
        both = *(Opening(n, rescue=False) for n in own), *(Opening(n, rescue=True) for n in rescues)
        return list(both[:most])

    def _own(self, generation: Generation, number: int) -> list[int]:
        if generation.lease is not None:
            return [generation.lease] * number
        # First the queues of the dead: somebody may wait there, but at a listener that not all have
        # only for those who have it.
        targets, awaiting = self.targets, self.book.awaiting
        met = [g for g in (targets.current, targets.trial) if g and g.is_met] if awaiting else []
        mine = {self._waiting(each) for each in met if each is generation} & awaiting
        theirs = {self._waiting(g) for g in met if g.spec.removed(generation.spec)} & awaiting
        inherits = self._inherits(generation)
        left = [n for n in self._left() if n in mine or (inherits and n not in theirs)]
        left = [lease for lease in left if lease not in generation.spec.foreign]
        return list(itertools.islice(itertools.chain(left, self._free(generation.spec)), number))

    def _inherits(self, generation: Generation) -> bool:
        """Whether its workers may answer, when ready, what came before them."""
        targets = self.targets
        if not (generation.may_be_met and self._has_all_listeners(generation.spec)):
            return False
        if generation is not targets.trial or targets.mixing:
            return True
        # Until the cut-over nobody knows what its answers are worth; better those than none.
        return not (targets.current and targets.current.ready)

    def _left(self) -> list[int]:
        """The leases in which somebody may wait, and from which nobody takes any more."""
        left = set(self.book.untaken)
        if not self.targets.exclusive:
            left -= {g.lease for g in self.targets.generations.values() if g.lease is not None}
        # As a rule there is none; only then is it worth a walk to find those in order.
        return [n for n in (*self.book.weights, *self.book.unquiet) if n in left] if left else []

    def _rescues(self, generation: Generation) -> bool:
        alone = self.targets.exclusive or generation.spec.rollout.exclusive
        return generation is self.targets.current and bool(generation.ready) and not alone

    def _abandoned(self) -> list[int]:
        """Leases with connections that nobody is left to take: the current generation must."""
        left, now = self.book.deserted, self.targets.now
        if not left:
            return []
        # Most queues become quiet by themselves within milliseconds, and need no worker for that.
        late = (n for n, since in self.book.unquiet.items() if now >= since + RESCUE_DELAY)
        return [lease for lease in late if lease in left and self._rescued(lease)]

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
        kinds = self.book.of(worker.lease).items()
        ready = sum(number for kind, number in kinds if kind.state is State.READY)
        alone = ready == (worker.state is State.READY)
        return generation.has_served(worker, now, took=took, alone=alone)

    # --- Queues that are no longer fed -----------------------------------------------------------

    def keeps(self, lease: int) -> bool:
        """Whether the workers on this lease may not go yet: it is to become Quiet first."""
        if lease in self.book.stale:
            self._note(lease)
        if lease in self.book.unquiet:
            return lease not in self.book.overdue
        return lease in self.book.awaiting

    def may_go(self, workers: list[Worker]) -> list[Worker]:
        """Return those that may not be kept by their lease.

        Where each has its own, most of a thousand may wait for it at each of a thousand facts:
        this is the only look at them, and takes 50 ns for each.
        """
        free = self.book.overdue | self.book.stale
        kept = (self.book.unquiet.keys() | self.book.awaiting) - free
        return [w for w in workers if w.lease not in kept]

    def _note_all(self) -> None:
        """Note what has changed since the last view. O(leases about which something changed).

        O(leases) if that changed which all depend on, as it does in each step of a rollout.
        """
        book, targets = self.book, self.targets
        newest = targets.newest.number if targets.newest else 0
        basis = (targets.stopping, newest, self._rescuers, book.foreign, *targets.generations)
        if basis != book.basis:
            book.basis = basis
            book.stale.update(book.unquiet)
        for lease in list(book.stale):
            self._note(lease)
        book.overdue.update(book.until.due(targets.now))

    def _note(self, lease: int) -> None:
        """Note in the book until when an unquiet lease keeps its workers."""
        book, targets = self.book, self.targets
        book.stale.discard(lease)
        if lease not in book.unquiet:
            return
        late = self.late_at(lease)
        until = self._stop_at(lease) if targets.stopping else late
        if until > targets.now:
            book.overdue.discard(lease)
            book.until.set(lease, until)
        else:
            book.overdue.add(lease)
            book.until.drop(lease)
        book.given_up.set(lease, self._given_up_at(lease, late))

    def _stop_at(self, lease: int) -> float:
        """Return when the workers on a lease are told to stop, though clients may wait there.

        Half of the time that they have to drain is left to them then; without a worker that serves
        there is nothing to wait for.
        """
        if not self._served(lease):
            return -math.inf
        numbers = {kind.generation for kind in self.book.of(lease)}
        timeouts = (self.targets.generations[n].spec.drain_timeout for n in numbers)
        return self.book.unquiet[lease] + min(timeouts) / 2

    def late_at(self, lease: int) -> float:
        """Return when the workers on an unfed lease wait no longer for its Quiet."""
        generations = self.targets.generations
        if not self._served(lease) and (lease not in self.book.deserted or self._rescued(lease)):
            return math.inf  # who boots has a deadline; who is not there yet will be sent
        # A queue is waited for as long as its workers may drain: that is what users configured.
        numbers = {kind.generation for kind in self.book.of(lease) if kind.active}
        numbers |= {n for n, g in generations.items() if g.lease == lease}
        timeouts = [generations[n].spec.drain_timeout for n in numbers]
        newest = self.targets.newest
        timeouts += [newest.spec.drain_timeout] if newest and not timeouts else []
        return self.book.unquiet[lease] + max(timeouts, default=0.0)

    def _given_up_at(self, lease: int, late: float) -> float:
        """Return when to forget an unfed lease: not before a rescue worker had its time, too.

        Its own workers may live and yet accept nothing.
        """
        rescued = any(kind.state is State.READY and kind.rescue for kind in self.book.of(lease))
        return late if rescued or not self._rescued(lease) else math.inf

    def given_up(self) -> list[int]:
        """Return the unfed leases that are to be forgotten now."""
        return self.book.given_up.due(self.targets.now)

    def deadlines(self) -> Iterator[float]:
        """Yield the instants at which one of these answers changes though nothing happens."""
        yield self.book.until.first()
        current = self.targets.current
        if current and self._rescues(current):
            for lease in self.book.deserted:
                yield max(self.book.unquiet[lease] + RESCUE_DELAY, current.not_before)

    def _answers(self, current: Generation) -> bool:
        lease = current.lease
        return bool(current.ready) if lease is None else self._served(lease)

    def _served(self, lease: int) -> bool:
        return any(kind.serves for kind in self.book.of(lease))

    def _rescued(self, lease: int) -> bool:
        """Whether a worker of ours may be sent there: not where it would meet others' clients."""
        return self._rescuers and lease not in self.book.foreign

    @property
    def _rescuers(self) -> bool:
        targets = self.targets
        wanted = any(g.wanted for g in (targets.current, targets.trial) if g)
        return bool(wanted and not targets.exclusive)


def shared(old: Mapping[int, int], new: Mapping[int, int], share: int) -> dict[int, int]:
    """Return weights of which those of `new` are exactly `share` percent, the others as before.

    Small ones: where queues take turns, each weight is so many places in a list.
    """
    weights = {n: w * (100 - share) * sum(new.values()) for n, w in old.items()}
    weights |= {n: w * share * sum(old.values()) for n, w in new.items()}
    divisor = math.gcd(*weights.values())
    return {n: weight // divisor for n, weight in weights.items()}
