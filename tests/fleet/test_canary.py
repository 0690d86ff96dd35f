"""A canary: a generation that proves itself on a share of the new connections. One claim a test."""

from __future__ import annotations

import math

import pytest

from sockmgr.config.spec import Accept, Canary, Spec, Surge
from sockmgr.fleet.canary import NEWER
from sockmgr.fleet.leases import shared
from sockmgr.fleet.messages import (
    Action,
    CanaryPassed,
    CanaryStep,
    Committed,
    CutOver,
    Feed,
    Phase,
)
from tests.fleet.reading import aborted, drained, serving, spawned, verdict
from tests.fleet.story import make_spec
from tests.fleet.world import World

TENTH = Canary(shares=(10,), seconds=30.0)
STEPS = Canary(shares=(5, 25, 50), seconds=30.0)


def canary(what: Canary = TENTH, *, workers: int = 2, **settings: object) -> Spec:
    return make_spec("v2", workers=workers, canary=what, **settings)


def proving(what: Canary = TENTH, *, workers: int = 2, **settings: object) -> World:
    """Return a world in which generation 2 has its first share."""
    world = serving(workers=workers, start_concurrency=20, **settings)
    world.reload(canary(what, workers=workers, start_concurrency=20, **settings))
    while world.having("booting"):
        world.ready(*world.having("booting"))
    assert world.fleet.trial
    assert world.fleet.trial.phase is Phase.CANARY
    return world


def steps(actions: list[Action]) -> list[int]:
    return [action.share for action in actions if isinstance(action, CanaryStep)]


def fed(world: World, generation: int) -> float:
    """How much of what comes a generation gets."""
    mine = {p.lease for p in world.processes.values() if p.id.generation == generation}
    return sum(w for n, w in world.fed.items() if n in mine) / sum(world.fed.values())


# --- Its share -----------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", Accept)
@pytest.mark.parametrize("share", [1, 10, 33, 50, 99])
def test_it_gets_exactly_its_share_when_all_of_its_workers_are_ready(
    accept: Accept, share: int
) -> None:
    world = proving(Canary(shares=(share,)), workers=3, accept=accept)
    assert fed(world, 2) == pytest.approx(share / 100, abs=1e-12)
    assert not drained(world.sleep(29))
    assert fed(world, 2) == pytest.approx(share / 100, abs=1e-12)


def test_it_gets_nothing_until_all_of_its_workers_are_ready() -> None:
    world = serving(workers=2, start_concurrency=2)
    world.reload(canary())
    assert not steps(world.ready("2.1"))
    assert world.fed == {0: 1}
    assert steps(world.ready("2.2")) == [10]
    assert world.fed == {0: 9, 1: 1}


def test_where_each_worker_has_a_queue_the_share_is_that_of_all_of_them_and_is_evenly_spread() -> (
    None
):
    world = proving(workers=2, accept=Accept.PER_WORKER)
    assert world.fed == {0: 9, 1: 9, 2: 1, 3: 1}


def test_the_share_is_the_same_when_the_numbers_of_workers_differ() -> None:
    world = serving(workers=3, accept=Accept.PER_WORKER, start_concurrency=9)
    world.reload(canary(workers=5, accept=Accept.PER_WORKER, start_concurrency=9))
    world.ready(*world.having("booting"))
    assert world.fed == {0: 15, 1: 15, 2: 15, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1} | dict.fromkeys(
        range(3, 8), 1
    )
    world.exit("1.2", status=-9)
    assert fed(world, 2) == pytest.approx(0.1)


def test_weights_are_as_small_as_can_be() -> None:
    assert shared({0: 4}, {1: 4}, 10) == {0: 9, 1: 1}
    assert shared({0: 1, 1: 3}, {2: 2}, 50) == {0: 1, 1: 3, 2: 4}


# --- How it goes on ------------------------------------------------------------------------------


def test_it_takes_step_after_step_and_then_everything_and_commits_after_the_probation() -> None:
    world = proving(STEPS)
    assert steps(world.due()) == [25]
    assert steps(world.due()) == [50]
    actions = world.due()
    assert [type(a) for a in actions[:3]] == [CanaryPassed, CutOver, Feed]
    assert world.fed == {1: 1}
    assert isinstance(verdict(world.due()), Committed)
    assert world.now == 100.0 + 3 * 30 + 0.5


def test_a_check_that_passes_early_does_not_shorten_the_step() -> None:
    world = proving(Canary(shares=(10, 50), check=("x",)))
    world.check(2, 0)
    assert not steps(world.wait(29))
    assert steps(world.due()) == [50]
    assert aborted(world.due()).reason == "its check did not pass within 30 s"


def test_a_check_that_does_not_end_takes_it_back() -> None:
    world = proving(Canary(shares=(10,), check=("x",)))
    found = aborted(world.due())
    assert found.reason == "its check did not pass within 30 s"
    assert found.kept == 1
    assert found.ready == 2


def test_the_check_of_an_earlier_step_does_not_count() -> None:
    world = proving(Canary(shares=(10, 50), check=("x",)))
    world.check(2, 0)
    world.due()
    world.check(2, 0)
    assert aborted(world.due())


def test_one_that_is_held_waits_for_somebody_in_its_last_step_only() -> None:
    world = proving(Canary(shares=(10, 50), hold=True))
    assert steps(world.due()) == [50]
    assert world.fleet.deadline == math.inf
    world.wait(1e6)
    assert isinstance(world.promote(2)[0], CanaryPassed)
    assert isinstance(verdict(world.due()), Committed)


def test_it_can_be_promoted_in_any_step() -> None:
    world = proving(STEPS)
    actions = world.promote(2)
    assert any(isinstance(a, CutOver) for a in actions)
    assert isinstance(verdict(world.due()), Committed)


def test_a_promotion_of_another_generation_or_a_second_one_changes_nothing() -> None:
    world = proving(STEPS)
    assert world.promote(1) == []
    world.promote(2)
    assert world.promote(2) == []


# --- How it is taken back ------------------------------------------------------------------------


def test_what_waits_in_its_queue_is_served_before_it_drains() -> None:
    world = proving()
    actions = world.take_back(2, "it answers 500")
    assert aborted(actions).reason == "it answers 500"
    assert world.fed == {0: 1}
    assert not drained(actions)
    assert drained(world.quiet(1)) == ["2.1", "2.2"]


def test_a_worker_of_it_that_dies_takes_it_back() -> None:
    found = aborted(proving().exit("2.1", status=-11))
    assert found.reason == "worker 2.1 was killed by signal 11 (SEGV), 0.0 s after it was ready"


def test_a_worker_of_it_that_hangs_takes_it_back() -> None:
    assert "2.1 hung" in aborted(proving().hang("2.1")).reason


def test_a_worker_of_the_old_generation_that_dies_is_replaced_and_the_canary_goes_on() -> None:
    world = proving()
    assert not spawned(world.exit("1.1", status=-9))
    assert spawned(world.sleep(1)) == ["1.1"]
    assert fed(world, 2) == pytest.approx(0.1)
    world.ready("1.1")
    assert isinstance(verdict(world.sleep(31)), Committed)


def test_a_worker_of_the_old_generation_that_hangs_is_none_of_its_faults() -> None:
    world = proving()
    assert spawned(world.hang("1.1")) == ["1.3"]
    world.ready("1.3")
    assert isinstance(verdict(world.sleep(31)), Committed)


def test_when_all_old_workers_have_died_it_serves_everybody_until_one_is_there_again() -> None:
    world = proving()
    world.exit("1.1", "1.2", status=-9)
    assert world.fed == {1: 1}
    world.sleep(2)
    world.ready("1.1")
    assert world.fed == {0: 9, 1: 1}


def test_one_that_is_taken_back_is_given_nothing_though_an_old_worker_is_missing() -> None:
    world = proving()
    world.exit("1.1", status=-9)
    world.take_back(2)
    assert world.fed == {0: 1}


def test_a_newer_reload_takes_its_place_even_if_it_is_held() -> None:
    world = proving(Canary(shares=(10,), hold=True))
    actions = world.reload(make_spec("v3", workers=2))
    assert aborted(actions).reason == NEWER
    assert {worker.split(".")[0] for worker in spawned(actions)} == {"3"}
    assert world.fed == {0: 1}


def test_a_stop_takes_it_back_and_everybody_who_waits_is_served() -> None:
    world = proving()
    assert "stopping" in aborted(world.stop()).reason
    world.be_kind()
    assert world.stopped


def test_a_rollout_without_a_canary_can_be_taken_back_too() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, start_concurrency=2))
    assert aborted(world.take_back(2, "a mistake")).reason == "a mistake"
    world.reload(make_spec("v3", workers=2, start_concurrency=2))
    world.ready(*[w for w in world.having("booting") if w.generation == 3])
    assert aborted(world.take_back(3, "a mistake")).reason == "a mistake"


# --- Without one ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", Accept)
def test_where_nobody_serves_there_is_no_canary(accept: Accept) -> None:
    world = World()
    world.start(make_spec("v1", workers=1, accept=accept))
    world.exit("1.1", status=1)
    actions = world.reload(canary(workers=1, accept=accept))
    actions += world.ready("2.1")
    assert not steps(actions)
    assert any(isinstance(a, CutOver) for a in actions)


def test_the_first_generation_of_a_service_that_a_reload_adds_is_no_canary() -> None:
    world = World()
    world.reload(canary(workers=1))
    assert any(isinstance(a, CutOver) for a in world.ready("1.1"))


# --- In portions, and with other numbers ---------------------------------------------------------


def test_with_a_surge_as_many_workers_prove_it_as_fit_beside_the_old_ones() -> None:
    world = serving(workers=4, start_concurrency=9)
    world.reload(canary(workers=4, start_concurrency=9, surge=Surge(amount=1)))
    assert world.having("booting") == [world.id("2.1")]
    assert steps(world.ready("2.1")) == [10]
    assert len([w for w in world.having("serving") if w.generation == 1]) == 4
    assert fed(world, 2) == pytest.approx(0.1)
    actions = world.due()
    assert any(isinstance(a, CanaryPassed) for a in actions)
    assert spawned(actions) or drained(actions)
    world.be_kind()
    assert world.fleet.current
    assert world.fleet.current.number == 2


def test_with_a_surge_it_gets_nothing_until_so_many_of_its_workers_are_ready() -> None:
    world = serving(workers=4, start_concurrency=9)
    world.reload(canary(workers=4, start_concurrency=9, surge=Surge(amount=2)))
    assert not steps(world.ready("2.1"))
    assert world.fed == {0: 1}
    assert steps(world.ready("2.2")) == [10]


def test_one_that_is_scaled_keeps_its_share_until_all_are_ready() -> None:
    world = proving()
    world.scale(4)
    assert fed(world, 2) == pytest.approx(0.1)
    assert not any(isinstance(a, CutOver) for a in world.wait(30))
    assert fed(world, 2) == pytest.approx(0.1)
    world.ready(*world.having("booting"))
    world.be_kind()
    assert world.fleet.current
    assert world.fleet.current.number == 2


def test_one_that_passed_and_does_not_get_whole_is_taken_back() -> None:
    world = proving()
    world.scale(4)
    assert "worker" in aborted(world.sleep(400)).reason


# --- Under the next manager ----------------------------------------------------------------------


def test_the_next_manager_goes_on_where_it_was() -> None:
    world = proving(STEPS)
    world.due()
    world.wait(10)
    world.succeed()
    assert world.fed == {0: 3, 1: 1}
    assert world.fleet.deadline == world.now + 20
    assert steps(world.due()) == [50]


def test_the_next_manager_runs_a_check_again_and_gives_it_its_time() -> None:
    world = proving(Canary(shares=(10,), check=("x",)))
    world.wait(25)
    world.succeed()
    assert world.fleet.deadline == world.now + 30
    world.check(2, 0)
    world.succeed()
    assert world.fleet.deadline == world.now + 30
    assert isinstance(verdict(world.sleep(31)), Committed)


def test_one_that_is_held_is_held_by_the_next_manager() -> None:
    world = proving(Canary(shares=(10,), hold=True))
    world.succeed()
    assert world.fleet.deadline == math.inf
    assert isinstance(world.promote(2)[0], CanaryPassed)
