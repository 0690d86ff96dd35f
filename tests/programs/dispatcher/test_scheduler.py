"""Who gets the next connection, and that nobody gets more than is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sockmgr.config.spec import Policy
from sockmgr.programs.dispatcher.scheduler import Scheduler

LIMIT = 64


def scheduler(
    workers: int, *, policy: Policy = Policy.ROUND_ROBIN, most: int | None = None, **weights: int
) -> Scheduler:
    """Return one with workers 0, 1, ... that are fed; `w2=3` gives worker 2 the weight 3."""
    made = Scheduler(policy, most)
    for lease in range(workers):
        made.add(lease)
    made.feed({lease: weights.get(f"w{lease}", 1) for lease in range(workers)})
    return made


def chosen(made: Scheduler, count: int, workers: int) -> list[int | None]:
    return [made.choose(range(workers)) for _ in range(count)]


@pytest.mark.parametrize("policy", Policy)
def test_held_connections_are_spread_evenly(policy: Policy) -> None:
    made = scheduler(4, policy=policy)
    assert Counter(chosen(made, 64, 4)) == {0: 16, 1: 16, 2: 16, 3: 16}


def test_round_robin_takes_turns_however_long_connections_stay() -> None:
    made = scheduler(3)
    assert chosen(made, 3, 3) == [0, 1, 2]
    made.ended(2)
    made.ended(1)
    assert chosen(made, 3, 3) == [0, 1, 2]


def test_least_connections_takes_whoever_has_fewest_and_turns_among_equals() -> None:
    made = scheduler(3, policy=Policy.LEAST_CONNECTIONS)
    assert chosen(made, 3, 3) == [0, 1, 2]
    made.ended(1)
    assert chosen(made, 1, 3) == [1]
    for lease in (0, 1, 2):
        made.ended(lease)
    # All are idle now: who was served longest ago is next, and not always the first.
    assert chosen(made, 1, 3) == [0]
    made.ended(0)
    assert chosen(made, 1, 3) == [2]


@pytest.mark.parametrize("policy", Policy)
def test_weights_are_kept_to_the_connection(policy: Policy) -> None:
    made = scheduler(2, policy=policy, w0=9)
    assert Counter(chosen(made, 100, 2)) == {0: 90, 1: 10}


def test_who_was_full_does_not_get_at_once_what_it_missed() -> None:
    made = scheduler(2)
    made.hold(1)
    assert chosen(made, 50, 2) == [0] * 50
    made.release(1)
    assert Counter(chosen(made, 10, 2)) == {0: 5, 1: 5}


def test_a_worker_that_joins_takes_its_turn_and_no_more() -> None:
    made = scheduler(2)
    chosen(made, 1000, 2)
    made.add(2)
    made.feed({0: 1, 1: 1, 2: 1})
    assert Counter(chosen(made, 9, 3)) == {0: 3, 1: 3, 2: 3}


def test_only_workers_of_the_listener_are_chosen() -> None:
    made = scheduler(3)
    assert [made.choose([1]) for _ in range(3)] == [1, 1, 1]
    assert made.choose([]) is None
    assert made.room([], LIMIT) == 0


def test_another_limit_counts_from_the_next_connection_on() -> None:
    made = scheduler(1)
    chosen(made, 5, 1)
    made.configure(Policy.ROUND_ROBIN, 4)
    assert made.choose([0]) is None
    made.ended(0, 2)
    assert [made.choose([0]) for _ in range(2)] == [0, None]
    made.configure(Policy.LEAST_CONNECTIONS, None)
    assert made.room([0], LIMIT) == LIMIT


def test_what_a_manager_before_us_passed_counts() -> None:
    made = scheduler(1, most=3)
    made.found(0, 2)
    assert made.room([0], LIMIT) == 1
    made.found(0, 5)  # max_connections is less than it was
    assert made.room([0], LIMIT) == 0


@given(
    policy=st.sampled_from(Policy),
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    rounds=st.integers(1, 5),
)
def test_shares_follow_the_weights_within_one_connection(
    policy: Policy, weights: list[int], rounds: int
) -> None:
    made = scheduler(len(weights), policy=policy, **{f"w{n}": w for n, w in enumerate(weights)})
    count = sum(weights) * rounds
    counts = Counter(chosen(made, count, len(weights)))
    for lease, weight in enumerate(weights):
        assert abs(counts[lease] - weight * rounds) <= 1


@dataclass
class Seen:
    """What a test has told the scheduler about one worker."""

    open: int = 0
    weight: int = 0
    held: bool = False


class SchedulerMachine(RuleBasedStateMachine):
    """Anything in any order, beside a model that only counts."""

    def __init__(self) -> None:
        super().__init__()
        self.most: int | None = None
        self.scheduler = Scheduler(Policy.ROUND_ROBIN)
        self.workers: dict[int, Seen] = {}
        self.begun = False

    @precondition(lambda self: not self.begun)
    @rule(policy=st.sampled_from(Policy), most=st.none() | st.integers(1, 4))
    def begin(self, policy: Policy, most: int | None) -> None:
        self.begun, self.most, self.policy = True, most, policy
        self.scheduler = Scheduler(policy, most)

    @precondition(lambda self: self.begun and len(self.workers) < 6)
    @rule(lease=st.integers(0, 9))
    def join(self, lease: int) -> None:
        if lease not in self.workers:
            self.scheduler.add(lease)
            self.workers[lease] = Seen()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.workers)))
        self.scheduler.forget(lease)
        del self.workers[lease]

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def feed(self, data: st.DataObject) -> None:
        weights = {
            lease: data.draw(st.integers(1, 3))
            for lease in self.workers
            if data.draw(st.booleans())
        }
        self.scheduler.feed(weights)
        for lease, seen in self.workers.items():
            seen.weight = weights.get(lease, 0)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), held=st.booleans())
    def hold_or_release(self, data: st.DataObject, held: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.workers)))
        (self.scheduler.hold if held else self.scheduler.release)(lease)
        self.workers[lease].held = held

    @precondition(lambda self: any(seen.open for seen in self.workers.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        having = sorted(lease for lease, seen in self.workers.items() if seen.open)
        lease = data.draw(st.sampled_from(having))
        count = data.draw(st.integers(1, self.workers[lease].open))
        self.scheduler.ended(lease, count)
        self.workers[lease].open -= count

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), count=st.integers(1, 9))
    def choose(self, data: st.DataObject, count: int) -> None:
        among = [lease for lease in self.workers if data.draw(st.booleans())]
        for _ in range(count):
            can = {lease for lease in among if self._has_room(self.workers[lease])}
            lease = self.scheduler.choose(among)
            assert (lease in can) if can else lease is None
            if lease is None:
                break
            if self.policy is Policy.LEAST_CONNECTIONS:
                load = {n: self.workers[n].open / self.workers[n].weight for n in can}
                assert load[lease] == min(load.values())
            self.workers[lease].open += 1

    @invariant()
    def everybody_has_what_was_counted(self) -> None:
        for lease, seen in self.workers.items():
            assert self.scheduler.open(lease) == seen.open
            assert self.scheduler.is_fed(lease) == (seen.weight > 0)

    @invariant()
    def room_is_what_is_left(self) -> None:
        free = [
            LIMIT if self.most is None else self.most - seen.open
            for seen in self.workers.values()
            if self._has_room(seen)
        ]
        assert self.scheduler.room(list(self.workers), LIMIT) == min(LIMIT, sum(free))

    def _has_room(self, seen: Seen) -> bool:
        within = self.most is None or seen.open < self.most
        return seen.weight > 0 and not seen.held and within


TestScheduler = SchedulerMachine.TestCase
