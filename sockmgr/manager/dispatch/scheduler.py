"""Who gets the next connection. Pure: no I/O, no clock; the same calls give the same answers.

A worker is known by its lease, a small number. It is *fed* while it has a weight, *held* while it
must get nothing for a reason of the caller's, and *full* with `max_connections` open ones. What
was passed to it and not yet taken counts as open.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sockmgr.config.spec import Policy


@dataclass(slots=True)
class _Worker:
    open: int = 0
    weight: int = 0
    held: bool = False
    takes: bool = False  # it is fed and not held
    turn: float = 0.0

    def settle(self) -> None:
        """Know whether it takes: looked at for each connection, and changed seldom."""
        self.takes = self.weight > 0 and not self.held


class Scheduler:
    """What each worker has open, and whose turn it is."""

    def __init__(self, policy: Policy, max_connections: int | None = None) -> None:
        """Go by `policy`; give no worker more than `max_connections` at a time."""
        self.configure(policy, max_connections)
        self._workers: dict[int, _Worker] = {}
        # Stride scheduling: each connection puts a worker's turn off by 1/weight. One that had no
        # room meanwhile goes on at `_now`: it does not get all at once what it has missed.
        self._now = 0.0

    def configure(self, policy: Policy, max_connections: int | None) -> None:
        """Go by these from now on; who has more than `max_connections` keeps them."""
        self._least = policy is Policy.LEAST_CONNECTIONS
        self._max = math.inf if max_connections is None else max_connections

    def add(self, lease: int) -> None:
        """Know a worker, with nothing open and not fed."""
        self._workers[lease] = _Worker()

    def forget(self, lease: int) -> None:
        """Know it no more."""
        del self._workers[lease]

    def feed(self, weights: Mapping[int, int]) -> None:
        """Let these workers have new connections, in proportion to their weights; no other."""
        for lease, worker in self._workers.items():
            worker.weight = weights.get(lease, 0)
            worker.settle()

    def hold(self, lease: int) -> None:
        """Give it nothing until `release()`."""
        worker = self._workers[lease]
        worker.held = True
        worker.settle()

    def release(self, lease: int) -> None:
        """Let it have connections again, if it is fed."""
        worker = self._workers[lease]
        worker.held = False
        worker.settle()

    def open(self, lease: int) -> int:
        """Return how many connections it has, with those that it has still to take."""
        return self._workers[lease].open

    def is_fed(self, lease: int) -> bool:
        """Tell whether the last feed() named it."""
        return self._workers[lease].weight > 0

    def room(self, among: Collection[int], limit: int) -> int:
        """Return how often choose() finds somebody now, `limit` at most."""
        found = 0.0
        for lease in among:
            worker = self._workers[lease]
            if worker.takes and worker.open < self._max:
                found += self._max - worker.open
                if found >= limit:
                    return limit
        return int(found)

    def choose(self, among: Collection[int]) -> int | None:
        """Return who of these gets a connection, which is its own from now on; None: nobody."""
        best, best_load, best_turn, chosen = -1, math.inf, math.inf, None
        for lease in among:
            worker = self._workers[lease]
            if not worker.takes or worker.open >= self._max:
                continue
            load = worker.open / worker.weight if self._least else 0.0
            turn = worker.turn if worker.turn > self._now else self._now
            if load < best_load or (load == best_load and turn < best_turn):
                best, best_load, best_turn, chosen = lease, load, turn, worker
        if chosen is None:
            return None
        self._now = best_turn
        chosen.turn = self._now + 1 / chosen.weight
        chosen.open += 1
        return best

    def ended(self, lease: int, connections: int = 1) -> None:
        """Count these as no longer its own: closed, lost, or taken back."""
        self._workers[lease].open -= connections

    def found(self, lease: int, connections: int) -> None:
        """Count these as its own, which it has since before our time."""
        self._workers[lease].open += connections
