"""accept = "per-worker": each worker holds a queue of its own. One claim a test."""

from __future__ import annotations

import math

import pytest

from sockmgr.config.spec import SURGE_ALL, Accept, Spec, Surge
from sockmgr.fleet.messages import Action, CutOver, Feed, Spawn
from tests.fleet.reading import ONE, drained, killed, spawned
from tests.fleet.story import make_spec
from tests.fleet.world import Life, World
from tests.helpers.states import record


def own(name: str, **settings: object) -> Spec:
    return make_spec(name, **{"accept": Accept.PER_WORKER, "start_concurrency": 20, **settings})


def serving(workers: int = 3, **settings: object) -> World:
    world = World()
    world.start(own("v1", workers=workers, **settings))
    world.be_kind()
    world.wait(60)
    return world


def leases(actions: list[Action]) -> dict[str, int]:
    return {str(a.worker): a.lease for a in actions if isinstance(a, Spawn)}


def fed(actions: list[Action]) -> list[set[int]]:
    return [{lease for lease, _ in a.leases} for a in actions if isinstance(a, Feed)]


# --- Who is fed ----------------------------------------------------------------------------------


def test_each_worker_is_fed_alike_from_the_moment_it_is_ready() -> None:
    world = World()
    assert leases(world.start(own("v1", workers=3))) == {"1.1": 0, "1.2": 1, "1.3": 2}
    assert fed(world.ready("1.2")) == [{1}]
    assert fed(world.ready("1.1")) == [{0, 1}]
    world.ready("1.3")
    assert world.fed == {0: 1, 1: 1, 2: 1}


def test_before_anybody_is_ready_connections_wait_for_the_first_worker() -> None:
    world = World()
    assert fed(world.start(own("v1", workers=3))) == [{0}]


def test_a_worker_that_dies_is_not_fed_any_more_in_the_same_answer() -> None:
    assert fed(serving().exit("1.2", status=-9)) == [{0, 2}]


def test_a_worker_that_is_killed_is_not_fed_any_more_though_it_is_not_gone() -> None:
    world = serving(workers=2, drain_timeout=5.0)
    world.recycle("1.2", "it hangs")
    world.ready("1.3")
    world.quiet(1)
    assert killed(world.sleep(5)) == ["1.2"]
    assert world.fed == {0: 1, 2: 1}


def test_a_worker_that_hangs_is_not_fed_any_more_in_the_same_answer() -> None:
    world = serving()
    assert fed(world.hang("1.2")) == [{0, 2}]
    world.succeed()
    assert world.fed.keys() == {0, 2}


def test_who_stops_by_itself_is_not_fed_any_more_and_its_successor_has_its_queue() -> None:
    world = serving()
    answer = world.leave("1.2")
    assert fed(answer) == [{0, 2}]
    assert leases(answer) == {"1.4": 1}
    assert not drained(answer)
    assert fed(world.ready("1.4")) == [{0, 2, 1}]


def test_who_stops_by_itself_has_time_for_it_and_a_successor_under_the_next_manager_too() -> None:
    world = serving(workers=1, drain_timeout=5.0)
    world.leave("1.1")
    world.succeed()
    world.ready("1.2")
    assert world.fed == {0: 1}
    assert killed(world.sleep(6)) == ["1.1"]


def test_the_next_manager_knows_that_who_stops_by_itself_takes_nothing_from_its_queue() -> None:
    world = serving()
    assert leases(world.leave("1.1")) == {"1.4": 0}
    world.succeed()
    world.exit("1.4", status=-9)
    assert leases(world.sleep(1)) == {"1.4": 0}


def test_what_waits_behind_a_worker_that_hangs_is_answered_by_another() -> None:
    world = serving()
    assert leases(world.hang("1.2")) == {"1.4": 3}
    assert leases(world.sleep(1)) == {"1.5": 1}
    world.ready("1.5")
    assert world.fed.keys() == {0, 2}


def test_one_that_hangs_is_no_reason_to_let_another_go_before_its_successor_serves() -> None:
    world = serving()
    world.hang("1.2")
    world.ready("1.4")
    assert not drained(world.recycle("1.3"))
    assert world.fed.keys() == {0, 2, 3}


def test_the_only_worker_is_fed_though_it_hangs_until_there_is_another() -> None:
    world = serving(workers=1)
    assert not fed(world.hang("1.1"))
    assert fed(world.ready("1.2")) == [{1}]


def test_a_cut_over_is_one_feed_of_all_new_queues_and_of_no_old_one() -> None:
    world = serving()
    world.reload(own("v2", workers=3))
    assert not fed(world.ready("2.1", "2.2"))
    actions = world.ready("2.3")
    assert any(isinstance(a, CutOver) for a in actions)
    assert fed(actions) == [{3, 4, 5}]


def test_an_abort_feeds_all_the_old_queues_again_in_one_step() -> None:
    world = serving()
    world.reload(own("v2", workers=3))
    world.ready("2.1", "2.2", "2.3")
    assert fed(world.exit("2.2", status=-11)) == [{0, 1, 2}]


def test_when_all_have_died_one_queue_is_fed_and_the_next_worker_gets_it() -> None:
    world = serving()
    world.exit("1.1", "1.2", "1.3", status=-9)
    (lease,) = world.fed
    world.sleep(1)
    holders = [p for p in world.processes.values() if p.lease == lease]
    assert [p.life for p in holders] == [Life.BOOTING]


def test_a_queue_shared_by_a_generation_weighs_as_much_as_its_workers() -> None:
    world = World()
    world.start(make_spec("v1", workers=3))
    world.be_kind()
    world.reload(own("v2", workers=3, surge=ONE))
    world.ready("2.1")
    assert world.fed == {0: 2, 1: 1}


# --- Who goes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("surge", [SURGE_ALL, ONE, Surge(amount=2)])
def test_no_worker_is_told_to_go_before_its_own_queue_was_unfed_and_quiet(surge: Surge) -> None:
    world = serving()
    world.reload(own("v2", workers=3, surge=surge, probation=0.0))
    while world.having(Life.BOOTING):
        actions = world.ready(world.having(Life.BOOTING)[0])
        assert not drained(actions)
        for lease in list(world.unfed):
            (worker,) = drained(world.quiet(lease))
            assert world.processes[world.id(worker)].lease == lease
    assert {p.id.generation for p in world.serving()} == {2}


def test_scaled_down_a_worker_stays_until_its_queue_is_quiet_or_late() -> None:
    world = serving(drain_timeout=20.0)
    actions = world.scale(1)
    assert (fed(actions), drained(actions)) == ([{0}], [])
    assert drained(world.quiet(2)) == ["1.3"]
    assert not drained(world.sleep(19))
    assert drained(world.sleep(2)) == ["1.2"]


def test_scaled_up_again_in_time_a_worker_is_fed_again_and_nobody_is_started() -> None:
    world = serving()
    world.scale(1)
    actions = world.scale(3)
    assert (fed(actions), spawned(actions)) == ([{0, 1, 2}], [])


def test_a_recycled_worker_is_fed_until_its_successor_is_and_goes_when_its_queue_is_quiet() -> None:
    world = serving()
    assert leases(world.recycle("1.2")) == {"1.4": 3}
    assert world.fed.keys() == {0, 1, 2}
    actions = world.ready("1.4")
    assert (fed(actions), drained(actions)) == ([{0, 2, 3}], [])
    assert drained(world.quiet(1)) == ["1.2"]


def test_an_exclusive_reload_leaves_what_comes_in_one_queue_which_the_new_version_gets() -> None:
    world = serving(exclusive=True)
    actions = world.reload(own("v2", workers=2, exclusive=True))
    assert (fed(actions), drained(actions)) == ([{0}], ["1.1"])
    world.quiet(1)
    world.quiet(2)
    assert leases(world.exit("1.1", "1.2", "1.3")) == {"2.1": 0, "2.2": 1}


@pytest.mark.parametrize(
    ("before", "after"), [(Accept.SHARED, Accept.PER_WORKER), (Accept.PER_WORKER, Accept.SHARED)]
)
def test_an_exclusive_reload_that_changes_the_way_of_accepting_leaves_nobody_waiting(
    before: Accept, after: Accept
) -> None:
    world = serving(workers=2, exclusive=True, accept=before)
    world.reload(own("v2", workers=2, exclusive=True, accept=after))
    (waiting,) = world.fed
    for lease in list(world.unfed):
        world.quiet(lease)
    world.exit("1.1", "1.2")
    assert waiting in {p.lease for p in world.processes.values()}


# --- Who gets which ------------------------------------------------------------------------------


def test_the_successor_of_the_dead_gets_the_queue_that_was_left() -> None:
    world = serving()
    world.wait(0)
    assert leases(world.exit("1.2", status=-9)) == {"1.2": 1}


def test_what_is_left_goes_to_the_successor_also_where_a_lower_number_is_free() -> None:
    world = serving()
    world.recycle("1.1")
    world.ready("1.4")
    world.quiet(0)
    world.exit("1.1")
    assert leases(world.exit("1.2", status=-9)) == {"1.1": 1}


def test_a_queue_is_not_taken_from_one_who_still_drains() -> None:
    world = serving(workers=1)
    world.scale(0)
    assert world.having(Life.DRAINING)
    assert leases(world.scale(1)) == {"1.2": 1}


def test_what_waits_for_the_version_that_serves_is_not_given_to_the_unproven() -> None:
    world = World()
    world.start(own("v1", workers=2))
    world.ready("1.1", "1.2")
    world.reload(own("v2", workers=2, start_concurrency=1))
    world.exit("1.1", status=1)
    assert leases(world.ready("2.1")) == {"2.2": 3}
    assert leases(world.sleep(1)) == {"1.1": 0}


def test_the_queue_that_a_generation_shares_is_its_own_also_while_it_has_no_worker() -> None:
    world = World()
    world.start(make_spec("v1", workers=1))
    world.ready("1.1")
    world.exit("1.1", status=1)  # so soon that the next start is put off
    assert leases(world.reload(own("v2", workers=1))) == {"2.1": 1}
    assert leases(world.due()) == {"1.1": 0}


def test_when_nobody_serves_a_new_version_answers_what_waits() -> None:
    world = World()
    world.start(own("v1", workers=2))
    world.exit("1.1", "1.2", status=1)
    assert 0 in leases(world.reload(own("v2", workers=2))).values()


def test_the_fullest_of_the_queues_that_were_there_before_is_fed_and_all_are_taken_over() -> None:
    world = World()
    assert leases(world.start(own("v1", workers=4), 3, 0, 5)) == {
        "1.1": 3, "1.2": 0, "1.3": 5, "1.4": 1,
    }  # fmt: skip
    assert world.fed == {3: 1}


def test_of_more_queues_than_workers_the_rest_is_emptied_by_rescue_workers() -> None:
    world = World()
    world.start(own("v1", workers=1), 3, 0)
    world.ready("1.1")
    assert leases(world.sleep(1)) == {"1.2": 0}
    assert not fed(world.ready("1.2"))
    assert drained(world.quiet(0)) == ["1.2"]


def test_a_rescue_worker_that_a_next_manager_found_is_still_none_to_be_fed() -> None:
    world = World()
    world.start(own("v1", workers=1), 3, 0)
    world.ready("1.1")
    world.sleep(1)
    world.ready("1.2")
    written = record("web", world.fleet, {})
    world.succeed()
    assert record("web", world.fleet, {}).generations == written.generations
    assert world.fed == {3: 1}
    assert drained(world.quiet(0)) == ["1.2"]


@pytest.mark.parametrize("surge", [SURGE_ALL, ONE])
def test_however_often_it_is_reloaded_there_are_no_more_queues_than_twice_the_workers(
    surge: Surge,
) -> None:
    world, numbers = serving(workers=4, surge=surge), set[int]()
    for number in range(2, 30):
        world.reload(own(f"v{number}", workers=4, surge=surge))
        world.be_kind()
        numbers |= world.fed.keys()
        assert len(world.fed) == 4
    assert max(numbers) < 2 * 4
    assert world.fleet.deadline == math.inf


def test_a_worker_that_crashes_again_and_again_uses_up_no_numbers() -> None:
    world = serving()
    for _ in range(20):
        died = world.exit("1.2", status=1)
        assert leases([*died, *world.sleep(40)]) == {"1.2": 1}
        world.ready("1.2")
