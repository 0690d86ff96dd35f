"""Who holds each lease, which leases are fed, and which are to become quiet: kept by each change.

The book only counts; what follows from it, leases.py works out. Workers that are alike are counted
together, as a Kind, so that a lease that a thousand workers share costs as much as one of one.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Set
from typing import NamedTuple, TypeVar

from sockmgr.config.spec import Address
from sockmgr.fleet.deadlines import Deadlines
from sockmgr.fleet.messages import State

Fed = tuple[tuple[int, int], ...]
Key = TypeVar("Key", bound=Hashable)


class Kind(NamedTuple):
    """What a worker is to the leases. Its fields are those of a generation.Worker."""

    generation: int
    state: State
    hung: bool
    leaving: bool
    rescue: bool

    @property
    def active(self) -> bool:
        """Whether it serves or will."""
        return self.state in (State.STARTING, State.READY)

    @property
    def serves(self) -> bool:
        """Whether it takes connections."""
        return self.state is State.READY and not self.hung

    @property
    def may_accept(self) -> bool:
        """Whether it may take connections, though it is told to stop: only death is certain."""
        return self.state is not State.KILLED and not self.leaving


class LeaseBook:
    """The leases of one fleet. What holds each of them is counted by Kind."""

    def __init__(self) -> None:
        self.holders: dict[int, Counter[Kind]] = {}
        self.fed: Fed = ()
        self.weights: dict[int, int] = {}  # the same by lease
        self.unquiet: dict[int, float] = {}  # lease no longer fed -> since when
        self.foreign: frozenset[int] = frozenset()  # that others have on listeners of ours by now
        # Fed for the listeners of a generation of which nobody is ready.
        self.awaiting: set[int] = set()
        self.elsewhere: Set[Address] = frozenset()  # listeners whose clients others have
        self.untaken: set[int] = set()  # fed or unquiet, and nobody who lives may accept there
        self.deserted: set[int] = set()  # unquiet, and nobody is to serve there
        # Of what is unquiet: until when workers are kept for it, and when it is given up.
        self.until: Deadlines[int] = Deadlines()
        self.given_up: Deadlines[int] = Deadlines()
        self.overdue: set[int] = set()  # whose `until` has passed
        self.stale: set[int] = set()  # to be worked out again: something about them has changed
        self.basis: object = None  # what all of these were worked out from besides
        # What the generations that serve are to be fed, and what that was worked out from.
        self.shares: Fed = ()
        self.shares_basis: object = None
        self._uses: Counter[int] = Counter()
        self._gaps: list[int] = []  # the leases below `_beyond` that nobody uses, in order
        self._beyond = 0

    # --- What is in use --------------------------------------------------------------------------

    @property
    def in_use(self) -> Set[int]:
        """The leases that somebody has, that are fed, or that may still hold connections."""
        return self._uses.keys()

    def use(self, lease: int) -> None:
        """Let nobody else get this lease until as many have called `unuse`."""
        self._uses[lease] += 1
        if self._uses[lease] > 1:
            return
        if lease >= self._beyond:
            self._gaps += range(self._beyond, lease)
            self._beyond = lease + 1
        else:
            del self._gaps[bisect_left(self._gaps, lease)]

    def unuse(self, lease: int) -> None:
        """Take back one `use`."""
        lower(self._uses, lease)
        if lease not in self._uses:
            insort(self._gaps, lease)

    def free(self) -> Iterator[int]:
        """Yield the leases that nobody uses, lowest first."""
        return itertools.chain(self._gaps, itertools.count(self._beyond))

    # --- Who holds them --------------------------------------------------------------------------

    def hold(self, lease: int, kind: Kind) -> None:
        """Count one more worker of a kind."""
        self.holders.setdefault(lease, Counter())[kind] += 1
        self._look(lease)

    def let_go(self, lease: int, kind: Kind) -> None:
        kinds = self.holders[lease]
        lower(kinds, kind)
        if not kinds:
            del self.holders[lease]
        self._look(lease)

    def of(self, lease: int) -> Mapping[Kind, int]:
        """Return the kinds of worker that hold a lease, and how many. A few a generation."""
        return self.holders.get(lease, {})

    # --- What is fed, and what was ---------------------------------------------------------------

    def feed(self, fed: Fed) -> None:
        """Know that these are fed and no others. O(leases), as the list itself is."""
        before, self.fed, self.weights = self.weights, fed, dict(fed)
        for lease in self.weights.keys() - before.keys():
            self.use(lease)
            self._look(lease)
        for lease in before.keys() - self.weights.keys():
            self.unuse(lease)
            self._look(lease)

    def leave(self, lease: int, since: float) -> None:
        """Know that a lease is to become quiet, `since` now; one that was, begins anew."""
        if lease not in self.unquiet:
            self.use(lease)
        self.unquiet[lease] = since
        self._look(lease)

    def forget(self, lease: int) -> None:
        """Know that a lease is quiet, given up, or fed again."""
        if self.unquiet.pop(lease, None) is None:
            return
        self.unuse(lease)
        self._look(lease)
        for kept in (self.until, self.given_up):
            kept.drop(lease)
        self.overdue.discard(lease)
        self.stale.discard(lease)

    def _look(self, lease: int) -> None:
        """Sort a lease in again, about which something has changed. O(kinds)."""
        unquiet = lease in self.unquiet
        if unquiet:
            self.stale.add(lease)
        elif lease not in self.weights:
            self.untaken.discard(lease)
            self.deserted.discard(lease)
            return
        kinds = self.of(lease)
        put(self.untaken, lease, not any(kind.may_accept for kind in kinds))
        put(self.deserted, lease, unquiet and not any(k.active and not k.hung for k in kinds))


def lower(counter: Counter[Key], key: Key) -> None:
    """Count one less, and forget a key of which there is none: what is kept does not grow."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def put(among: set[int], lease: int, belongs: bool) -> None:
    """Let a lease be among these or not."""
    if belongs:
        among.add(lease)
    else:
        among.discard(lease)
