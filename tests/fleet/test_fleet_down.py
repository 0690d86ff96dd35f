"""When a service has been down for `when_down`, so that its manager is to end."""

from __future__ import annotations

import math

import pytest

from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.messages import Start, Tick
from sockmgr.fleet.restoring import LENIENCE, restore
from tests.fleet.story import hooked, make_spec
from tests.fleet.world import World
from tests.helpers.states import record

PATIENCE = 30.0


def a_world(patience: float | None = PATIENCE, **more: object) -> World:
    world = World()
    world.start(make_spec("v1", when_down=patience, **more))
    return world


def after(world: World, seconds: float) -> bool:
    world.sleep(seconds)
    return world.fleet.is_lost


def test_a_service_that_never_serves_is_lost_after_that_time_and_not_before() -> None:
    world = a_world()
    assert not after(world, PATIENCE - 1)
    assert after(world, 1.1)


def test_a_service_without_that_key_is_never_lost() -> None:
    assert not after(a_world(None), 20 * PATIENCE)


def test_one_ready_worker_of_several_keeps_it() -> None:
    world = a_world(workers=2)
    world.ready("1.1")
    assert not after(world, 10 * PATIENCE)


def test_the_time_begins_when_the_last_worker_ends_and_again_when_one_is_ready() -> None:
    world = a_world()
    world.sleep(PATIENCE - 5)
    world.ready("1.1")
    world.sleep(20)
    world.exit("1.1", status=1)
    assert not after(world, PATIENCE - 1)
    assert after(world, 1.1)


def test_the_time_of_a_rollout_does_not_count_and_its_end_begins_it_anew() -> None:
    world = a_world(exclusive=True, max_failed_starts=1)
    world.ready("1.1")
    world.reload(make_spec("v2", when_down=PATIENCE, ready_timeout=500.0, max_failed_starts=1))
    world.quiet(0)
    world.exit("1.1")
    assert not after(world, 10 * PATIENCE)
    assert world.fleet.trial
    world.exit("2.1", status=1)
    assert world.fleet.trial is None
    assert not after(world, PATIENCE - 1)
    assert after(world, 1.1)


def test_a_hook_before_the_first_workers_does_not_count_but_the_time_between_two_does() -> None:
    world = a_world(hooks=hooked(before=20 * PATIENCE))
    assert not after(world, 10 * PATIENCE)  # a migration takes as long as it takes
    next_one = restore(record("web", world.fleet, {}), world.now)
    assert next_one.lost_at == math.inf
    runs = 1
    while not world.fleet.is_lost:
        world.hook_ends("exited with status 3")
        while not (world.hook or world.fleet.is_lost):
            world.sleep(0.2)
        if world.hook:
            assert not after(world, PATIENCE)
            runs += 1
    assert runs > 5


def test_the_wait_for_services_that_it_is_after_does_not_count() -> None:
    fleet = Fleet()
    fleet.handle(Start(spec=make_spec("v1", when_down=PATIENCE), patience=10 * PATIENCE), 0.0)
    assert fleet.lost_at == math.inf
    assert fleet.deadline == 10 * PATIENCE
    fleet.handle(Tick(), 10 * PATIENCE)
    assert fleet.lost_at == 11 * PATIENCE


def test_nothing_is_lost_in_a_stop_nor_where_no_worker_is_wanted() -> None:
    world = a_world()
    world.scale(0)
    assert not after(world, 2 * PATIENCE)
    world = a_world()
    world.stop()
    assert not after(world, 2 * PATIENCE)


@pytest.mark.parametrize("down", [5.0, PATIENCE - 1, 3 * PATIENCE])
def test_the_next_manager_goes_on_counting_and_first_looks_who_is_there(down: float) -> None:
    world = a_world()
    began = world.now
    next_one = restore(record("web", world.fleet, {}), began + down)
    assert next_one.lost_at == max(began + PATIENCE, began + down + LENIENCE)
    assert restore(record("web", a_world(None).fleet, {}), began).lost_at == math.inf
