"""Ends that are no fault, starts that must not wait, drains that are cut short."""

from __future__ import annotations

import pytest

from sockmgr.config.spec import Accept, Delay
from sockmgr.fleet.generation import HURRY, SERVED, STEADY, UNSEEN
from sockmgr.fleet.messages import Aborted, Committed, Finish, WorkerExited, WorkerId
from sockmgr.fleet.roster import NOTICE
from sockmgr.fleet.turnover import TOO_MANY
from sockmgr.worker.deadline import FINISH
from tests.fleet.reading import aborted, drained, killed, serving, spawned, verdict
from tests.fleet.story import make_spec
from tests.fleet.world import World

BACKGROUND = 0.2  # the pause after the first failure

# --- Recycled ------------------------------------------------------------------------------------


def test_a_worker_that_served_and_ends_cleanly_is_replaced_at_once() -> None:
    world = serving(workers=2)
    world.wait(SERVED)
    assert spawned(world.exit("1.1")) == ["1.1"]
    assert spawned(world.exit("1.2")) == ["1.2"]


@pytest.mark.parametrize("status", [1, -9])
def test_a_worker_that_served_and_ends_otherwise_is_replaced_after_a_pause(status: int) -> None:
    world = serving()
    world.wait(SERVED)
    assert not spawned(world.exit("1.1", status=status))
    assert world.fleet.deadline == pytest.approx(world.now + BACKGROUND)


def test_a_worker_that_ends_as_soon_as_it_is_ready_and_took_nothing_is_replaced_ever_later() -> (
    None
):
    world = serving()
    for _ in range(4):
        world.wait(SERVED / 2)
        assert not spawned(world.exit("1.1"))
        world.due()
        world.ready("1.1")
    assert not spawned(world.exit("1.1"))
    assert world.fleet.deadline > world.now + 3


def test_a_new_generation_whose_worker_says_at_once_that_it_stops_is_taken_back() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.ready("2.1")
    assert "stopped by itself" in aborted(world.leave("2.1")).reason


def test_a_worker_that_took_what_waited_may_end_at_any_pace() -> None:
    world = serving()
    for _ in range(20):
        assert spawned(world.exit("1.1", took=True)) == ["1.1"]
        world.ready("1.1")


def test_a_worker_that_emptied_the_queue_before_it_was_seen_to_be_ready_was_ready() -> None:
    world = World()
    world.start(make_spec("v1"))
    for _ in range(20):
        assert spawned(world.exit("1.1", took=True)) == ["1.1"]


def test_of_those_not_seen_ready_beside_one_that_is_only_a_few_can_have_taken_something() -> None:
    world = serving(workers=2)
    assert spawned(world.exit("1.1", took=True)) == ["1.1"]
    for _ in range(UNSEEN):
        assert spawned(world.exit("1.1", took=True)) == ["1.1"]
    assert not spawned(world.exit("1.1", took=True))
    world.due()
    world.ready("1.1")
    assert spawned(world.exit("1.1", took=True)) == ["1.1"]
    assert spawned(world.exit("1.1", took=True)) == ["1.1"]


def test_what_was_taken_from_a_worker_s_own_queue_it_took_itself() -> None:
    world = serving(workers=2, accept=Accept.PER_WORKER)
    assert spawned(world.exit("1.1", took=True)) == ["1.1"]


def test_a_program_that_exits_at_once_with_0_again_and_again_is_tried_ever_later() -> None:
    world = World()
    world.start(make_spec("true"))
    pauses = []
    for _ in range(12):
        world.exit("1.1")
        pauses.append(world.fleet.deadline - world.now)
        world.due()
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(30)


def test_where_readiness_is_a_guess_only_a_steady_worker_has_served() -> None:
    world = serving(ready=Delay(seconds=1.0))
    world.wait(STEADY / 2)
    assert not spawned(world.exit("1.1"))
    world.due()
    world.ready("1.1")
    world.wait(STEADY)
    assert spawned(world.exit("1.1")) == ["1.1"]


def test_a_recycled_worker_is_not_put_off_by_another_one_that_fails_again_and_again() -> None:
    world = serving(workers=2)
    for _ in range(6):
        world.exit("1.2", status=1)
        world.due()
    world.exit("1.2", status=1)
    assert world.fleet.deadline > world.now + SERVED
    world.wait(SERVED)
    assert "1.1" in spawned(world.exit("1.1"))


def test_a_worker_that_says_it_stops_is_replaced_before_it_ends() -> None:
    world = serving()
    world.wait(SERVED)
    assert spawned(world.leave("1.1")) == ["1.2"]


def test_a_generation_whose_workers_recycle_in_probation_commits() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=10.0))
    world.ready("2.1", "2.2")
    world.wait(SERVED)
    assert spawned(world.exit("2.1")) == ["2.1"]
    assert spawned(world.leave("2.2")) == ["2.3"]
    world.exit("2.2")
    world.ready("2.1", "2.3")
    assert isinstance(verdict(world.sleep(10)), Committed)


def test_a_generation_whose_workers_end_cleanly_but_at_once_is_aborted_in_probation() -> None:
    world = serving()
    world.reload(make_spec("v2", probation=10.0))
    world.ready("2.1")
    world.wait(SERVED / 2)
    assert isinstance(verdict(world.exit("2.1")), Aborted)


def test_a_generation_that_serves_before_it_is_whole_may_recycle_too() -> None:
    world = serving(workers=2)
    world.wait(SERVED)
    world.reload(make_spec("v2", workers=2))
    world.ready("2.1")
    world.exit("1.1", "1.2")  # so 2.1 is all there is
    world.wait(SERVED)
    world.ready("1.1", "1.2")
    assert spawned(world.exit("2.1")) == ["2.1"]
    assert world.fleet.trial


def test_what_is_a_recycle_can_be_asked_before_it_is_told() -> None:
    world = serving()
    fact = WorkerExited(worker=WorkerId(1, 1), status=0)
    assert not world.fleet.recycles(fact, world.now + SERVED / 2)
    assert world.fleet.recycles(fact, world.now + SERVED)


# --- Clients that wait ---------------------------------------------------------------------------


def crash_loop(world: World) -> None:
    for _ in range(8):
        world.exit("1.1", status=1)
        world.due()
    world.exit("1.1", status=1)


def test_clients_who_wait_for_a_generation_with_nobody_left_wait_no_longer_than_that() -> None:
    world = serving()
    crash_loop(world)
    assert world.fleet.starves
    assert world.fleet.deadline > world.now + 10
    world.clients_wait()
    assert not world.fleet.starves
    assert world.fleet.deadline == pytest.approx(world.now + HURRY)
    assert spawned(world.due()) == ["1.1"]


def test_without_clients_a_crash_loop_stays_slow() -> None:
    world = serving()
    crash_loop(world)
    assert not spawned(world.sleep(25))


def test_clients_who_wait_do_not_hurry_what_somebody_else_serves() -> None:
    world = serving(workers=2)
    crash_loop(world)
    deadline = world.fleet.deadline
    assert not world.fleet.starves
    world.clients_wait()
    assert world.fleet.deadline == deadline


# --- Whom nobody serves --------------------------------------------------------------------------


def test_an_abort_tells_how_many_of_the_generation_that_stays_can_serve() -> None:
    world = serving(workers=2)
    world.exit("1.1", status=1)
    world.reload(make_spec("v2", workers=2, max_failed_starts=1))
    told = verdict(world.exit("2.1", status=1))
    assert isinstance(told, Aborted)
    assert (told.kept, told.ready) == (1, 1)
    world.exit("1.2", status=1)
    world.reload(make_spec("v3", workers=2, max_failed_starts=1))
    told = verdict(world.exit("3.1", status=1))
    assert isinstance(told, Aborted)
    assert (told.kept, told.ready) == (1, 0)


# --- Too many drains -----------------------------------------------------------------------------


def crowded() -> World:
    """Return a world in which one generation more drains than may, from now on."""
    world = serving(drain_timeout=900.0, probation=0.0, max_draining=1)
    for number in (2, 3):
        world.wait(5)
        world.reload(make_spec(f"v{number}", drain_timeout=900.0, probation=0.0, max_draining=1))
        world.wait(5)
        world.ready(f"{number}.1")
    return world


def test_the_oldest_of_too_many_draining_generations_is_told_to_finish_and_then_killed() -> None:
    world = serving(drain_timeout=900.0, probation=0.0, max_draining=1)
    world.reload(make_spec("v2", drain_timeout=900.0, probation=0.0, max_draining=1))
    world.ready("2.1")
    world.quiet(0)
    world.wait(5)
    world.reload(make_spec("v3", drain_timeout=900.0, probation=0.0, max_draining=1))
    actions = world.ready("3.1")
    assert [a for a in actions if isinstance(a, Finish)] == [
        Finish(worker=WorkerId(1, 1), why=TOO_MANY)
    ]
    assert not killed(world.sleep(FINISH * 0.9))
    assert killed(world.sleep(FINISH * 0.2)) == ["1.1"]


def test_one_that_was_not_told_to_stop_yet_is_told_that_first_and_to_finish_later() -> None:
    world = crowded()
    assert drained(world.sleep(0)) == []
    assert str(WorkerId(1, 1)) not in map(str, world.having("serving"))  # type: ignore[arg-type]
    actions = world.sleep(NOTICE)
    assert [str(a.worker) for a in actions if isinstance(a, Finish)] == ["1.1"]
    assert killed(world.sleep(FINISH)) == ["1.1"]


def test_an_order_to_finish_gives_nobody_more_time_than_it_had() -> None:
    world = serving(drain_timeout=FINISH + 1, probation=0.0, max_draining=1)
    for number in (2, 3):
        world.reload(make_spec(f"v{number}", drain_timeout=900.0, probation=0.0, max_draining=1))
        world.ready(f"{number}.1")
        world.quiet(number - 2)
        if number == 2:
            world.wait(FINISH)
    assert killed(world.sleep(1)) == ["1.1"]


def test_an_order_to_finish_is_given_once_also_by_the_next_manager() -> None:
    world = crowded()
    world.sleep(NOTICE)
    assert not [a for a in world.succeed() if isinstance(a, Finish)]
