"""The workers of one generation, counted and in order, so that no fact has to look at all of them.

What is counted here is changed by the step of a worker that changes it: the worker is taken out,
takes its step and is put in again (generation.Worker). Each costs O(log n) for n workers, and a
move of pointers in a sorted list, which for a few thousand is less than one comparison in Python.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from sockmgr.fleet.deadlines import Deadlines
from sockmgr.fleet.lease_book import Kind, LeaseBook, lower
from sockmgr.fleet.limits import Wear
from sockmgr.fleet.messages import State

if TYPE_CHECKING:
    from sockmgr.fleet.generation import Worker

NOTICE = 0.5  # between two stop signals: of two that wait, a process gets one (signal(7))


class Place(NamedTuple):
    """A worker's place among those that are told to go from the end: who serves least goes first.

    No two have the same slot, so that the workers themselves are never compared.
    """

    useless: bool  # it takes no connections, or not yet
    unhealthy: bool
    since: float  # 0 where this does not count; negative, as whoever came last stays
    slot: int
    worker: Worker


class Roster:
    """The living workers by slot, in the order in which they came."""

    def __init__(self, book: LeaseBook, deadlines: Deadlines[Worker]) -> None:
        """`book` and `deadlines` are those of the whole fleet, and are kept up to date as well."""
        self.by_slot: dict[int, Worker] = {}
        self.members: list[Place] = []  # active, no rescue, not being replaced
        self.replaced: list[Place] = []  # active, no rescue, a successor is to come or there
        self.rescues: dict[int, Worker] = {}  # active, by slot
        self.unhealthy: dict[int, Worker] = {}  # ready, by slot: they fail their probes
        self.worn: dict[Worker, Wear] = {}  # ready, first worn first: to be recycled in their turn
        self.kinds: Counter[Kind] = Counter()
        self.leases: Counter[int] = Counter()  # of all that are no rescues
        self.told: Deadlines[Worker] = Deadlines()  # who drains, and when it may be told to finish
        self.touched: dict[int, Worker] = {}  # by arrival, since the records were last written
        self.changes = 0  # of who is active, or of their places: what follows from those is kept
        self.ready = 0  # can take a connection that is meant for this generation
        self._book, self._deadlines = book, deadlines
        self._arrivals = itertools.count()
        self._free: list[int] = []  # slots below `_next` that were free once, lowest first
        self._next = 1

    # --- Who comes and goes ----------------------------------------------------------------------

    def add(self, worker: Worker) -> None:
        """Let this worker belong to the generation."""
        slot = worker.id.slot
        for free in range(self._next, slot):
            heappush(self._free, free)
        self._next = max(self._next, slot + 1)
        self.by_slot[slot] = worker
        worker.roster, worker.arrival = self, next(self._arrivals)
        self._book.use(worker.lease)
        if not worker.rescue:
            self.leases[worker.lease] += 1
        self.put_in(worker)

    def remove(self, worker: Worker) -> None:
        self.take_out(worker)
        del self.by_slot[worker.id.slot]
        worker.roster = None
        heappush(self._free, worker.id.slot)
        if not worker.rescue:
            lower(self.leases, worker.lease)
        self._book.unuse(worker.lease)

    def free_slot(self) -> int:
        """Return the lowest slot that nobody has."""
        while self._free and self._free[0] in self.by_slot:
            heappop(self._free)
        return self._free[0] if self._free else self._next

    # --- What a step changes ---------------------------------------------------------------------

    def put_in(self, worker: Worker) -> None:
        """Count this worker as what it is now."""
        kind = worker.kind
        self.touched[worker.arrival] = worker
        self.kinds[kind] += 1
        self._book.hold(worker.lease, kind)
        self._deadlines.set(worker, worker.deadline)
        if worker.unhealthy and worker.state is State.READY:
            self.unhealthy[worker.id.slot] = worker
        if worker.worn and worker.state is State.READY and not worker.recycle:
            self.worn[worker] = worker.worn
        if worker.active:
            self.changes += 1
            if worker.rescue:
                self.rescues[worker.id.slot] = worker
            else:
                insort(self._order(worker), _place(worker))
                self.ready += kind.serves
        elif worker.state is State.DRAINING and not worker.finishing:
            self.told.set(worker, worker.since + NOTICE)

    def take_out(self, worker: Worker) -> None:
        """Count this worker no more; it is about to change."""
        kind = worker.kind
        lower(self.kinds, kind)
        self._book.let_go(worker.lease, kind)
        self._deadlines.drop(worker)
        self.unhealthy.pop(worker.id.slot, None)
        self.worn.pop(worker, None)
        if worker.active:
            self.changes += 1
            if worker.rescue:
                del self.rescues[worker.id.slot]
            else:
                order = self._order(worker)
                del order[bisect_left(order, _place(worker))]
                self.ready -= kind.serves
        else:
            self.told.drop(worker)

    def _order(self, worker: Worker) -> list[Place]:
        return self.replaced if worker.recycle else self.members

    # --- What there is ---------------------------------------------------------------------------

    def number(self, state: State) -> int:
        """Return how many workers are in this state. O(kinds), which are a dozen at most."""
        return sum(number for kind, number in self.kinds.items() if kind.state is state)

    def active(self) -> Iterator[Worker]:
        """Yield all that serve or will. O(those)."""
        for place in itertools.chain(self.members, self.replaced):
            yield place.worker
        yield from self.rescues.values()


def useful(order: list[Place]) -> int:
    """Return how many at the beginning of this order take connections."""
    return bisect_left(order, True, key=itemgetter(0))


def _place(worker: Worker) -> Place:
    starting, is_ill = worker.state is State.STARTING, bool(worker.unhealthy)
    if worker.recycle:
        return Place(starting or worker.hung, is_ill, -worker.since, worker.id.slot, worker)
    return Place(starting, is_ill, 0.0, worker.id.slot, worker)
