"""What becomes of workers that fail their probes, and whom a probe tells anything of."""

from __future__ import annotations

import pytest

from sockmgr.config.spec import Accept
from sockmgr.fleet.messages import WorkerId
from tests.fleet.reading import ONE, aborted, drained, serving, spawned
from tests.fleet.story import make_spec
from tests.fleet.world import Life, World


def own_queues(workers: int) -> World:
    return serving(workers=workers, accept=Accept.PER_WORKER)


def test_a_worker_that_fails_its_probes_gets_nothing_more_until_its_successor_is_ready() -> None:
    world = own_queues(3)
    lease = world.processes[WorkerId(1, 2)].lease
    assert lease in world.fed
    assert spawned(world.fail_probes("1.2")) == ["1.4"]
    assert lease not in world.fed
    world.quiet(lease)
    assert drained(world.ready("1.4")) == ["1.2"]


def test_one_slot_at_a_time_is_replaced_for_its_health_and_the_next_when_somebody_is_well() -> None:
    world = own_queues(4)
    assert spawned(world.fail_probes("1.2", "1.3")) == ["1.5"]
    world.be_kind()
    assert world.having(Life.BOOTING) == []
    assert spawned(world.pass_probe("1.5")) == ["1.2"]
    world.be_kind()
    assert sorted(str(w.id) for w in world.fleet.workers()) == ["1.1", "1.2", "1.4", "1.5"]


def test_when_all_fail_one_is_replaced_and_as_long_as_its_successor_fails_as_well_no_other() -> (
    None
):
    world = own_queues(2)
    assert spawned(world.fail_probes("1.1", "1.2")) == ["1.3"]
    world.be_kind()
    assert spawned(world.fail_probes("1.3")) == []
    world.sleep(3600)
    assert {w.id for w in world.fleet.workers()} == {WorkerId(1, 2), WorkerId(1, 3)}
    assert world.fleet.current
    assert world.fleet.current.sick
    assert len(world.fed) == 2


def test_a_single_worker_is_replaced_once() -> None:
    world = own_queues(1)
    assert spawned(world.fail_probes("1.1")) == ["1.2"]
    world.be_kind()
    assert spawned(world.fail_probes("1.2")) == []


def test_a_worker_that_is_well_again_before_its_turn_is_left_alone() -> None:
    world = own_queues(3)
    world.fail_probes("1.1", "1.2")
    world.pass_probe("1.2")
    world.be_kind()
    world.pass_probe("1.4")
    assert sorted(str(w.id) for w in world.fleet.workers()) == ["1.2", "1.3", "1.4"]
    assert world.fleet.current
    assert not world.fleet.current.sick


def test_a_worker_that_is_unhealthy_in_probation_takes_its_generation_back() -> None:
    world = own_queues(1)
    world.reload(make_spec("v2", accept=Accept.PER_WORKER, probation=5.0))
    world.ready("2.1")
    told = aborted(world.fail_probes("2.1"))
    assert told.reason == "worker 2.1 is unhealthy: probe GET /up answered 500"
    assert told.worker == WorkerId(2, 1)


def test_the_next_manager_knows_who_is_unhealthy_and_that_a_replacement_did_not_help() -> None:
    world = own_queues(2)
    world.fail_probes("1.1", "1.2")
    world.be_kind()
    world.succeed()
    assert world.fleet.current
    assert world.fleet.current.doubtful
    assert spawned(world.fail_probes("1.3")) == []
    assert spawned(world.pass_probe("1.2")) == ["1.1"]


# --- Who goes first ------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
@pytest.mark.parametrize("boots", [True, False])
def test_a_healthy_worker_that_is_recycled_does_not_go_for_one_that_is_unhealthy(
    accept: Accept, boots: bool
) -> None:
    world = serving(workers=2, accept=accept)
    world.recycle("1.1")
    if not boots:  # and the next start is put off
        world.exit("1.3", status=1)
    world.fail_probes("1.2")
    world.scale(1)
    (serves,) = world.serving()
    assert str(serves.id) == "1.1"
    world.be_kind()
    (last,) = world.fleet.workers()
    assert (last.recycle, last.unhealthy) == ("", "")


def test_of_those_that_serve_the_unhealthy_go_first() -> None:
    world = own_queues(3)
    world.fail_probes("1.2", "1.1")
    world.be_kind()
    assert sorted(str(id) for id in world.having(Life.SERVING)) == ["1.1", "1.3", "1.4"]
    world.scale(2)
    assert sorted(str(each.id) for each in world.serving()) == ["1.3", "1.4"]


# --- Whom a probe tells anything of --------------------------------------------------------------


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_each_worker_of_a_generation_that_is_not_fed_is_asked(accept: Accept) -> None:
    world = serving(accept=accept)
    world.reload(make_spec("v2", workers=2, accept=accept))
    assert world.fleet.asks(WorkerId(2, 1))
    assert world.fleet.asks(WorkerId(2, 2))


def test_the_first_generation_is_asked_though_clients_may_wait_in_its_queue() -> None:
    world = World()
    world.start(make_spec("v1", workers=2))
    assert world.fed
    assert world.fleet.asks(WorkerId(1, 1))


def test_on_a_shared_queue_nobody_is_asked_when_another_who_is_ready_may_answer() -> None:
    world = serving(workers=2)
    world.exit("1.1", status=-9)
    world.sleep(1)
    assert world.having(Life.BOOTING) == [WorkerId(1, 1)]
    assert not world.fleet.asks(WorkerId(1, 1))
    rolling = serving(workers=2)
    rolling.reload(make_spec("v2", workers=2, surge=ONE))
    assert rolling.fleet.asks(WorkerId(2, 1))


def test_a_successor_on_a_queue_of_its_own_is_asked() -> None:
    world = own_queues(2)
    world.recycle("1.1")
    assert world.fleet.asks(WorkerId(1, 3))


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_when_all_who_served_are_dead_the_next_is_not_asked_behind_the_clients_who_wait(
    accept: Accept,
) -> None:
    world = serving(accept=accept)
    world.exit("1.1", status=-9)
    world.sleep(1)
    assert not world.fleet.asks(WorkerId(1, 1))


def test_a_generation_that_takes_over_the_queue_of_one_that_it_ends_is_asked() -> None:
    world = serving(exclusive=True)
    world.reload(make_spec("v2", exclusive=True))
    world.exit("1.1", status=0)
    assert world.having(Life.BOOTING) == [WorkerId(2, 1)]
    assert world.fleet.asks(WorkerId(2, 1))


def test_nobody_who_is_gone_is_asked() -> None:
    assert not serving().fleet.asks(WorkerId(9, 1))
