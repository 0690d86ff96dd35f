"""Workers that have reached a limit: one at a time, successor first, in no rollout, in no loop."""

from __future__ import annotations

import pytest

from sockmgr.config.spec import Accept, Canary, Spec
from sockmgr.fleet.limits import SPREAD, Limit, reached
from sockmgr.fleet.messages import Action, Recycled, WorkerId, WorkerReady
from sockmgr.fleet.recycling import EARLY, PAUSE, PAUSE_MAX
from tests.fleet.reading import drained, serving, spawned
from tests.fleet.story import make_spec
from tests.fleet.world import Life, World


def grown_up(workers: int = 3, **settings: object) -> World:
    """Return a world whose workers have served for longer than EARLY."""
    world = serving(workers=workers, **settings)
    world.sleep(EARLY)
    return world


def recycled(actions: list[Action]) -> list[str]:
    return [str(a.worker) for a in actions if isinstance(a, Recycled)]


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_one_slot_at_a_time_is_recycled_and_the_next_when_the_one_before_has_ended(
    accept: Accept,
) -> None:
    world = grown_up(accept=accept)
    assert spawned(world.wear_out("1.2", "1.1", "1.3")) == ["1.4"]
    done = world.ready("1.4")
    if accept is Accept.PER_WORKER:  # nobody else empties its queue
        done = world.quiet(world.processes[WorkerId(1, 2)].lease)
    assert drained(done) == ["1.2"]
    assert recycled(world.sleep(5)) == []
    assert recycled(world.exit("1.2")) == ["1.1"]


def test_the_successor_comes_first_and_the_reason_is_told() -> None:
    world = grown_up()
    actions = world.wear_out("1.1", limit=Limit.REQUESTS)
    told = Recycled(
        worker=WorkerId(1, 1), limit=Limit.REQUESTS, why="max_requests reached", early=0, pause=0.0
    )
    assert actions[0] == told
    assert not drained(actions)
    assert len(world.serving()) == 3


@pytest.mark.parametrize("canary", [None, Canary(shares=(10,), seconds=30.0)])
def test_none_is_recycled_in_a_rollout_nor_beside_a_canary(canary: Canary | None) -> None:
    world = grown_up(workers=2, accept=Accept.PER_WORKER)
    rollout = make_spec("v2", workers=2, canary=canary, probation=5.0, accept=Accept.PER_WORKER)
    world.reload(rollout)
    assert recycled(world.wear_out("1.1")) == []
    world.ready("2.1", "2.2")
    assert recycled(world.wear_out("2.1", "1.2")) == []
    assert recycled(world.sleep(4)) == []
    assert world.fleet.trial
    assert recycled(world.take_back(2)) == ["1.1"]


def test_who_reached_a_limit_in_a_rollout_has_its_turn_when_that_is_taken_back() -> None:
    world = grown_up(workers=2)
    world.reload(make_spec("v2", workers=2))
    world.wear_out("1.1")
    assert recycled(world.exit("2.1", status=3)) == ["1.1"]


def test_a_new_generation_whose_worker_reached_a_limit_on_probation_recycles_it_then() -> None:
    world = grown_up(workers=2)
    world.reload(make_spec("v2", workers=2, probation=5.0))
    world.ready("2.1", "2.2")
    assert recycled(world.wear_out("2.1")) == []
    assert recycled(world.sleep(5)) == ["2.1"]


def test_none_is_recycled_while_another_slot_is_not_served() -> None:
    world = grown_up()
    world.exit("1.3", status=-9)
    assert recycled(world.wear_out("1.1")) == []
    world.sleep(1)
    assert recycled(world.ready("1.3")) == ["1.1"]


def test_none_is_recycled_while_another_drains_for_whatever_reason() -> None:
    world = grown_up()
    world.leave("1.2")
    world.ready("1.4")
    assert recycled(world.wear_out("1.1")) == []
    assert recycled(world.exit("1.2")) == ["1.1"]


def test_a_worker_that_hangs_is_replaced_beside_one_that_is_recycled() -> None:
    world = grown_up(accept=Accept.PER_WORKER)
    world.wear_out("1.1")
    assert spawned(world.hang("1.2")) == ["1.5"]


def test_an_old_generation_that_drains_for_long_keeps_nobody_from_being_recycled() -> None:
    world = grown_up(workers=1, drain_timeout=1e6)
    world.reload(make_spec("v2", workers=1))
    world.ready("2.1")
    world.quiet(0)
    world.sleep(EARLY)
    assert world.having(Life.DRAINING) == [WorkerId(1, 1)]
    assert recycled(world.wear_out("2.1")) == ["2.1"]


def test_a_worker_that_reached_a_limit_while_it_is_replaced_is_not_recycled_again() -> None:
    world = grown_up(workers=1)
    world.recycle("1.1")
    assert recycled(world.wear_out("1.1")) == []
    world.ready("1.2")
    assert recycled(world.exit("1.1")) == []


# --- A limit that is too low for any worker ------------------------------------------------------


def loop(world: World) -> Recycled:
    """Let the current worker reach its limit as soon as it is ready; return what comes of it."""
    (worker,) = world.having(Life.SERVING)
    actions = world.wear_out(worker)
    actions += world.sleep(PAUSE_MAX)
    world.ready(*world.having(Life.BOOTING))
    world.exit(*world.having(Life.DRAINING))
    (told,) = (a for a in actions if isinstance(a, Recycled))
    return told


def test_each_worker_that_reaches_a_limit_at_once_puts_off_the_next_for_longer() -> None:
    world = serving(workers=1, ready_timeout=1e6)
    told = [loop(world) for _ in range(9)]
    assert [each.early for each in told] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [each.pause / PAUSE for each in told] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_pause_holds_for_all_workers_and_the_next_manager_knows_of_it() -> None:
    world = serving(workers=2, ready_timeout=1e6)
    world.wear_out("1.1", "1.2")
    world.ready("1.3")
    world.exit("1.1")
    world.succeed()
    assert recycled(world.sleep(PAUSE - 1)) == []
    assert recycled(world.sleep(1)) == ["1.2"]
    assert world.fleet.current
    assert world.fleet.current.early == 2


def test_one_that_has_served_long_enough_ends_the_row() -> None:
    world = serving(workers=1, ready_timeout=1e6)
    loop(world)
    world.sleep(EARLY)
    (told,) = (a for a in world.wear_out("1.2") if isinstance(a, Recycled))
    assert (told.early, told.pause) == (0, 0.0)


def test_an_age_below_a_minute_is_what_somebody_asked_for() -> None:
    world = serving(workers=1, max_age=5.0)
    (told,) = (a for a in world.sleep(5) if isinstance(a, Recycled))
    assert (told.limit, told.early, told.pause) == (Limit.AGE, 0, 0.0)


# --- Limits --------------------------------------------------------------------------------------


def test_workers_of_one_age_reach_it_at_different_times_by_their_draw() -> None:
    world = World()
    world.start(make_spec("v1", workers=2, max_age=1000.0))
    world.tell(WorkerReady(worker=WorkerId(1, 1), draw=0.0))
    world.tell(WorkerReady(worker=WorkerId(1, 2), draw=0.5))
    assert recycled(world.sleep(1000 * (1 - SPREAD / 2))) == ["1.2"]


def test_the_age_of_a_worker_goes_on_under_the_next_manager() -> None:
    world = serving(workers=1, max_age=100.0)
    world.sleep(60)
    world.succeed()
    assert recycled(world.sleep(39)) == []
    assert recycled(world.sleep(1)) == ["1.1"]


def test_who_reached_a_limit_under_one_manager_is_recycled_by_the_next() -> None:
    world = grown_up(workers=2)
    world.reload(make_spec("v2", workers=2))
    world.wear_out("1.1")
    world.succeed()
    assert recycled(world.exit("2.1", status=3)) == ["1.1"]


def spec(**limits: float) -> Spec:
    return make_spec("v1", **limits)


@pytest.mark.parametrize(
    ("limits", "used", "draw", "told"),
    [
        ({"max_rss": 1 << 29}, {Limit.RSS: (1 << 29) - 1}, 0.9, ""),
        ({"max_rss": 1 << 29}, {Limit.RSS: 600 << 20}, 0.0, "max_rss reached: 600M of 512M"),
        ({"max_requests": 100}, {Limit.REQUESTS: 99}, 0.0, ""),
        ({"max_requests": 100}, {Limit.REQUESTS: 100}, 0.0, "max_requests reached: 100 of 100"),
        ({"max_requests": 100}, {Limit.REQUESTS: 95}, 0.5, "max_requests reached: 95 of 100"),
        ({"max_requests": 100}, {Limit.REQUESTS: 94}, 0.5, ""),
        ({"max_cpu_time": 60.0}, {Limit.CPU_TIME: 60.5}, 0.0, "max_cpu_time reached: 60.5 of 60"),
        ({"max_cpu_time": 60.0}, {Limit.CPU_TIME: 59.0}, 0.0, ""),
        ({}, {Limit.RSS: 1e18, Limit.REQUESTS: 1e18, Limit.CPU_TIME: 1e18}, 0.9, ""),
        ({"max_rss": 1, "max_requests": 1, "max_cpu_time": 1.0}, {}, 0.9, ""),
    ],
)
def test_a_limit_is_reached_by_what_a_worker_has_used(
    limits: dict[str, float], used: dict[Limit, float], draw: float, told: str
) -> None:
    found = reached(spec(**limits), used, draw)
    assert (found[1] if found else "") == told
