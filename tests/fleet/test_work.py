"""A fact costs what it touches: the lines that are run for a worker do not grow with the workers.

Lines are counted, not seconds, so a busy machine changes nothing.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from types import FrameType
from typing import Any

import pytest

from sockmgr.config.spec import SURGE_ALL, Accept, Surge
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import (
    Action,
    Committed,
    Drain,
    Fact,
    Feed,
    Quiet,
    Recycle,
    Refuse,
    Reload,
    Spawn,
    Start,
    Stop,
    Stopped,
    Tick,
    WorkerExited,
    WorkerId,
    WorkerReady,
)
from tests.fleet.story import make_spec

FEW, MANY = 30, 300
LISTED = 100  # where a list of all grows with them
ONE = Surge(amount=1)


class EasyWorld:
    """A world in which every process does at once what it should; it checks nothing."""

    def __init__(self) -> None:
        self.fleet, self.now, self.lines = Fleet(), 100.0, 0
        self.actions: deque[Action] = deque()
        self.done: list[Action] = []
        self.fed: set[int] = set()

    def live(self, facts: list[Fact]) -> None:
        """Let these happen, and what follows from them, until all is at rest."""
        for fact in facts:
            self.tell(fact)
        while self.actions or self.fleet.deadline < math.inf:
            if not self.actions:
                self.now = max(self.now, self.fleet.deadline)
                self.tell(Tick())
                continue
            action = self.actions.popleft()
            self.done.append(action)
            self.perform(action)

    def perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self.tell(WorkerReady(worker=action.worker))
            case Drain():
                self.tell(WorkerExited(worker=action.worker, status=0))
            case Feed():
                fed = {lease for lease, _ in action.leases}
                left, self.fed = self.fed - fed, fed
                self.be_quiet(left)
            case Refuse():
                self.be_quiet(self.fed)

    def be_quiet(self, leases: set[int]) -> None:
        for lease in sorted(leases):
            self.tell(Quiet(lease=lease))

    def tell(self, fact: Fact) -> None:
        self.now += 1e-6
        before = sys.gettrace()
        sys.settrace(self.count)
        try:
            self.actions += self.fleet.handle(fact, self.now)
            _ = self.fleet.deadline
        finally:
            sys.settrace(before)

    def count(self, _frame: FrameType, event: str, _argument: object) -> Any:
        self.lines += event == "line"
        return self.count


def lines_of_a_life(workers: int, accept: Accept, surge: Surge) -> dict[str, float]:
    """Return how many lines each part of a service's life runs for a worker."""
    world, lines = EasyWorld(), dict[str, float]()
    settings: dict[str, Any] = {"workers": workers, "accept": accept, "surge": surge,
                                "start_concurrency": workers, "drain_timeout": 1e6}  # fmt: skip
    steps: dict[str, list[Fact]] = {
        "start": [Start(spec=make_spec("v1", **settings))],
        "reload": [Reload(spec=make_spec("v2", **settings), request=1)],
        "recycle": [Recycle(worker=WorkerId(2, n + 1), why="its age") for n in range(workers)],
        "wear": [],
        "stop": [Stop()],
    }
    for step, facts in steps.items():
        before = world.lines
        # All reach it at once, so that each waits for its turn.
        old = [worker.id for worker in world.fleet.workers()] if step == "wear" else []
        worn = [Recycle(worker=id, why="its age", limit=Limit.AGE) for id in old]
        world.live(facts or worn)
        lines[step] = (world.lines - before) / workers
    assert sum(isinstance(action, Spawn) for action in world.done) == 4 * workers
    assert any(isinstance(action, Committed) for action in world.done)
    assert isinstance(world.done[-1], Stopped)
    return lines


SURGES = pytest.mark.parametrize("surge", [SURGE_ALL, ONE], ids=["at-once", "rolling"])


@SURGES
def test_each_of_many_workers_costs_as_much_as_each_of_a_few(surge: Surge) -> None:
    few = lines_of_a_life(FEW, Accept.SHARED, surge)
    many = lines_of_a_life(MANY, Accept.SHARED, surge)
    for step, lines in few.items():
        assert many[step] <= 1.1 * lines, f"{step}: {lines:.0f} lines, then {many[step]:.0f}"


@SURGES
def test_where_each_has_its_own_queue_only_the_list_of_those_grows(surge: Surge) -> None:
    """What is fed is a list of all; of more workers it is as much longer."""
    few = lines_of_a_life(FEW, Accept.PER_WORKER, surge)
    many = lines_of_a_life(LISTED, Accept.PER_WORKER, surge)
    for step, lines in few.items():
        longer = many[step] - lines
        assert longer <= 15 * LISTED, f"{step}: {lines:.0f} lines, then {many[step]:.0f}"
