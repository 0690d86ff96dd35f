"""What a fleet keeps count of, counted again from its workers, each of which it must agree with."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.leases import Leases
from sockmgr.fleet.messages import State
from sockmgr.fleet.roster import NOTICE


def check(fleet: Fleet) -> None:
    """Raise AssertionError if a count is not what a recount gives."""
    for generation in fleet.generations.values():
        _check_roster(generation)
    _check_book(fleet)
    _check_instants(fleet)
    for worker in fleet.workers():
        assert fleet._late.of(worker) == worker.deadline
    assert fleet._late.first() == min((w.deadline for w in fleet.workers()), default=math.inf)


def _check_roster(generation: Generation) -> None:
    roster, workers = generation.roster, list(generation.workers.values())
    active = [w for w in workers if w.active and not w.rescue]
    members = [w for w in active if not w.recycle]
    replaced = [w for w in active if w.recycle]
    by_use = sorted(
        members, key=lambda w: (w.state is State.STARTING, bool(w.unhealthy), w.id.slot)
    )
    by_age = sorted(
        replaced,
        key=lambda w: (
            w.state is State.STARTING or w.hung, bool(w.unhealthy), -w.since, w.id.slot
        ),
    )  # fmt: skip
    assert [place.worker for place in roster.members] == by_use
    assert [place.worker for place in roster.replaced] == by_age
    assert set(roster.rescues.values()) == {w for w in workers if w.active and w.rescue}
    assert roster.ready == sum(w.kind.serves for w in active)
    unhealthy = {w for w in workers if w.unhealthy and w.state is State.READY}
    assert set(roster.unhealthy.values()) == unhealthy
    waiting = {w: w.worn for w in members if w.worn and w.state is State.READY}
    rescues = [w for w in roster.rescues.values() if not w.recycle]
    waiting |= {w: w.worn for w in rescues if w.worn and w.state is State.READY}
    assert roster.worn == waiting
    assert roster.kinds == Counter(w.kind for w in workers)
    assert roster.leases == Counter(w.lease for w in workers if not w.rescue)
    assert [w.arrival for w in workers] == sorted(w.arrival for w in workers)
    slots = {w.id.slot for w in workers}
    assert roster.free_slot() == next(n for n in itertools.count(1) if n not in slots)
    for worker in workers:
        told = worker.state is State.DRAINING and not worker.finishing
        assert roster.told.of(worker) == (worker.since + NOTICE if told else math.inf)


def _check_book(fleet: Fleet) -> None:
    book, workers = fleet._book, list(fleet.workers())
    by_lease: dict[int, list[Worker]] = {}
    for worker in workers:
        by_lease.setdefault(worker.lease, []).append(worker)
    counted = {lease: Counter(w.kind for w in mine) for lease, mine in by_lease.items()}
    assert book.holders == counted
    assert book.weights == dict(book.fed)
    shared = {g.lease for g in fleet.generations.values() if g.lease is not None}
    in_use = shared | by_lease.keys() | book.unquiet.keys() | book.weights.keys()
    assert book.in_use == in_use
    free = (n for n in itertools.count() if n not in in_use)
    assert list(itertools.islice(book.free(), 3)) == list(itertools.islice(free, 3))
    held = {w.lease for w in workers if w.state is not State.KILLED and not w.leaving}
    assert book.untaken == (book.unquiet.keys() | book.weights.keys()) - held
    used = {w.lease for w in workers if w.active and not w.hung}
    assert book.deserted == book.unquiet.keys() - used


def _check_instants(fleet: Fleet) -> None:
    leases, book = fleet._leases(), fleet._book
    for lease, until in _until(leases):
        assert leases.keeps(lease) == (fleet._now < until), f"lease {lease} until {until}"
        assert book.until.of(lease) == (until if until > fleet._now else math.inf)
    assert book.given_up.first() > fleet._now or fleet._now == 0
    noted = leases.to_feed()
    book.shares_basis = None
    assert leases.to_feed() == noted


def _until(leases: Leases) -> Iterator[tuple[int, float]]:
    for lease in leases.book.unquiet:
        if leases.targets.stopping:
            yield lease, leases._stop_at(lease)
        else:
            yield lease, leases.late_at(lease)
