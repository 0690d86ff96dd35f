"""Looks at starting workers cost a bounded share of the manager's time, however many start."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest

from sockmgr.manager.workers.lookout import AGE_SHARE, LATEST, SOONEST, Lookout, Turn

COST = 0.0001  # seconds that a look takes


class Clock:
    """A loop whose time passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        heapq.heappush(self._timers, (when, next(self._numbers), callback))
        return callback

    @property
    def idle(self) -> bool:
        return not self._timers

    def run(self, until: float) -> None:
        while self._timers and self._timers[0][0] <= until:
            when, _, callback = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            callback()
        self.now = max(self.now, until)


class Start:
    """Workers that start at once on a clock, ready after these times; what looks at them saw."""

    def __init__(self, ready: list[float]) -> None:
        self.clock = Clock()
        self.lookout = Lookout(cast("asyncio.AbstractEventLoop", self.clock))
        self.looks = 0
        self.seen: dict[int, float] = {}
        self.watches = [
            self.lookout.watch(partial(self._look, number, at)) for number, at in enumerate(ready)
        ]

    def _look(self, number: int, ready: float, _: Turn) -> bool:
        self.looks += 1
        self.clock.now += COST
        if self.clock.now >= ready:
            self.seen[number] = self.clock.now
        return number in self.seen


def looks_in(seconds: float, workers: int) -> int:
    start = Start([float("inf")] * workers)
    start.clock.run(seconds)
    return start.looks


def test_looks_in_vain_at_any_number_of_workers_take_a_fifth_of_the_time_at_most() -> None:
    for workers in (50, 500, 5000):
        assert looks_in(10.0, workers) * COST <= 2.1


def test_a_worker_that_takes_long_is_looked_at_as_often_as_the_longest_pause_allows() -> None:
    assert looks_in(0.0, 1) == 0
    assert looks_in(10.0, 1) <= 10.0 / LATEST + 20


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("boot", [0.004, 0.03, 0.5, 5.0])
def test_a_worker_is_seen_to_be_ready_soon_after_it_is(workers: int, boot: float) -> None:
    start = Start([boot] * workers)
    start.clock.run(2 * boot + 1)
    late = max(SOONEST, min(boot / AGE_SHARE, LATEST)) + 10 * workers * COST
    assert all(boot <= at <= boot + late for at in start.seen.values())
    assert len(start.seen) == workers


def test_workers_that_are_ready_are_all_seen_at_the_cost_of_one_look_at_each() -> None:
    start = Start([0.0] * 1000)
    start.clock.run(5.0)
    assert start.looks == len(start.seen) == 1000
    assert max(start.seen.values()) < SOONEST + 1.1 * 1000 * COST


def test_who_is_left_is_looked_at_no_more_and_nobody_costs_no_timer() -> None:
    start = Start([float("inf")] * 3)
    for watch in start.watches:
        start.lookout.leave(watch)
    start.clock.run(5.0)
    assert start.looks == 0
    assert start.clock.idle


def test_a_look_that_fails_keeps_nobody_else_from_being_looked_at() -> None:
    start = Start([1.0])

    def fail(_: Turn) -> bool:
        raise OSError("no descriptor is left")

    start.lookout.watch(fail)
    with pytest.raises(OSError, match="no descriptor"):
        start.clock.run(5.0)
    start.clock.run(5.0)
    assert list(start.seen) == [0]
