"""Chooses the worker that gets the next connection. Pure: no I/O, no clock, no randomness.

A worker is known by its lease, a small number. It is *fed* while it has a weight, *held* while the
caller has a reason to give it nothing, and *full* with `max_connections` open connections. A
connection that was passed to a worker and is not yet taken counts as open.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

LEAST_CONNECTIONS = "least-connections"  # any other policy is in turn: config.spec.Policy


class _Worker:
    __slots__ = ("held", "open", "takes", "turn", "weight")

    def __init__(self) -> None:
        self.open = self.weight = 0
        self.held = False
        self.takes = False  # it is fed and not held
        self.turn = 0.0

    def settle(self) -> None:
        """Compute `takes`, which is read for each connection and changes seldom."""
        self.takes = self.weight > 0 and not self.held


class Scheduler:
    """Keeps how many connections each worker has open, and whose turn it is."""

    def __init__(self, policy: str, max_connections: int | None = None) -> None:
        """Go by `policy`; give no worker more than `max_connections` at a time."""
        self.configure(policy, max_connections)
        self._workers: dict[int, _Worker] = {}
        # Stride scheduling: each connection puts a worker's turn off by 1/weight. One that had no
        # room meanwhile goes on at `_now`: it does not get all at once what it has missed.
        self._now = 0.0

    def configure(self, policy: str, max_connections: int | None) -> None:
        """Use these from now on; a worker that has more than `max_connections` keeps them."""
        self._least = policy == LEAST_CONNECTIONS
        self._max = math.inf if max_connections is None else max_connections

    def add(self, lease: int, weight: int = 0) -> None:
        """Add a worker that has nothing open; it is fed if it has a weight."""
        worker = self._workers[lease] = _Worker()
        worker.weight = weight
        worker.settle()

    def forget(self, lease: int) -> None:
        del self._workers[lease]

    def feed(self, weights: Mapping[int, int]) -> None:
        """Give new connections to these workers only, in proportion to their weights."""
        for lease, worker in self._workers.items():
            worker.weight = weights.get(lease, 0)
            worker.settle()

    def hold(self, lease: int) -> None:
        """Give the worker nothing until release()."""
        worker = self._workers[lease]
        worker.held = True
        worker.settle()

    def release(self, lease: int) -> None:
        """Give the worker connections again, if it is fed."""
        worker = self._workers[lease]
        worker.held = False
        worker.settle()

    def open(self, lease: int) -> int:
        """Return how many connections the worker has, including those that it has still to take."""
        return self._workers[lease].open

    def is_fed(self, lease: int) -> bool:
        """Return whether the last feed() named this worker."""
        return self._workers[lease].weight > 0

    def room(self, among: Collection[int], limit: int) -> int:
        """Return how often choose() would find a worker now, at most `limit`."""
        found = 0.0
        for lease in among:
            worker = self._workers[lease]
            if worker.takes and worker.open < self._max:
                found += self._max - worker.open
                if found >= limit:
                    return limit
        return int(found)

    def choose(self, among: Collection[int]) -> int | None:
        """Return the one of these workers that gets a connection, and count that; None if full."""
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
        """Count connections of a worker as closed, lost, or taken back."""
        self._workers[lease].open -= connections

    def found(self, lease: int, connections: int) -> None:
        """Count connections that an adopted worker had before us."""
        self._workers[lease].open += connections
