"""Who serves, who replaces whom, and on which queue. As in test_fleet.py, one claim a test."""

from __future__ import annotations

import math

import pytest

from sockmgr.config.spec import Surge
from sockmgr.fleet.fleet import SPAWN_BATCH
from sockmgr.fleet.messages import Committed, Drain, Feed, Phase, Spawn, Tick, WorkerId
from tests.fleet.reading import ONE, drained, killed, serving, spawned, verdict
from tests.fleet.story import listening, make_spec
from tests.fleet.world import Life, Unfed, World

# --- P2: somebody serves -------------------------------------------------------------------------


def test_p2_one_worker_is_replaced_only_when_the_new_one_is_ready() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    assert not drained(world.sleep(50))
    assert not drained(world.ready("2.1"))
    world.quiet(0)
    world.sleep(1)
    assert world.having(Life.DRAINING) == [WorkerId(1, 1)]


def test_p2_a_queue_that_is_not_quiet_keeps_its_worker_until_the_timeout() -> None:
    world = serving(drain_timeout=20.0)
    world.reload(make_spec("v2", probation=0.0))
    world.ready("2.1")
    assert not drained(world.sleep(19))
    assert drained(world.sleep(2)) == ["1.1"]


def test_p2_a_queue_that_another_service_left_is_emptied_however_long_nothing_has_happened() -> (
    None
):
    world = serving(drain_timeout=20.0)
    world.now += 3600
    world.fleet.inherit({0, 7}, world.now)
    world.unfed[7] = Unfed(world.now, 20.0)
    assert not spawned(world.tell(Tick())), "most queues become quiet by themselves"
    [rescue] = [each for each in world.wait(1) if isinstance(each, Spawn)]
    assert (rescue.lease, set(world.fleet.unquiet)) == (7, {7})


def test_p2_a_queue_is_quiet_only_if_it_says_so_after_it_was_unfed() -> None:
    world = serving()
    world.quiet(0)
    world.reload(make_spec("v2", probation=0.0))
    assert not drained(world.ready("2.1"))
    assert drained(world.quiet(0)) == ["1.1"]


def test_p2_a_first_generation_takes_the_fullest_of_the_queues_that_were_there_before() -> None:
    world = World()
    assert spawned(world.start(make_spec("v1"), 3, 0, 5)) == ["1.1"]
    assert world.fed == {3: 1}
    assert world.processes[WorkerId(1, 1)].lease == 3


def test_p2_what_waits_in_the_other_queues_is_rescued_and_an_empty_one_is_left_alone() -> None:
    world = World()
    world.start(make_spec("v1"), 3, 0, 5)
    world.quiet(5)
    world.ready("1.1")
    assert spawned(world.sleep(1)) == ["1.2"]
    assert world.processes[WorkerId(1, 2)].lease == 0
    world.ready("1.2")
    assert drained(world.quiet(0)) == ["1.2"]


def test_p2_a_reload_takes_no_queue_in_which_somebody_may_still_wait() -> None:
    world = World()
    world.start(make_spec("v1"), 1, 0, 2)
    world.ready("1.1")
    world.reload(make_spec("v2"))
    assert world.processes[WorkerId(2, 1)].lease == 3


def test_p2_when_all_workers_crash_their_queue_stays_fed() -> None:
    world = serving(workers=2)
    world.exit("1.1", "1.2", status=-9)
    assert world.fed == {0: 1}


def test_p2_an_unproven_generation_serves_when_all_others_have_crashed() -> None:
    world = serving()
    world.reload(make_spec("v2", workers=2))
    world.ready("2.1")
    world.exit("1.1", status=-9)
    assert world.fed == {1: 1}


def test_p2_scaling_to_zero_drains_all_and_connections_wait() -> None:
    world = serving(workers=2)
    assert drained(world.scale(0)) == ["1.1", "1.2"]
    assert world.fed == {0: 1}


def test_p2_a_rolling_reload_to_more_workers_never_drains_a_queue_that_is_still_fed() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=4, surge=ONE, start_concurrency=4))
    while world.having(Life.BOOTING):
        world.ready(world.having(Life.BOOTING)[0])
    world.be_kind()


def test_p2_an_aborted_generation_that_helps_out_does_so_during_the_next_rollout() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=9.0))
    world.ready("2.1", "2.2")
    world.exit("1.1", "1.2", status=-9)
    world.exit("2.1", status=-9)
    assert world.fed == {1: 1}
    world.reload(make_spec("v3", workers=2, surge=ONE))
    assert world.fed == {1: 1}
    world.be_kind()


def test_p2_an_aborted_generation_helps_for_as_long_as_the_current_one_may_need_to_boot() -> None:
    world = serving(workers=4, surge=ONE, drain_timeout=1.0)
    world.reload(make_spec("v2", workers=4, surge=ONE, drain_timeout=1.0, probation=50.0))
    for slot in (1, 2, 3, 4):
        world.ready(f"2.{slot}")
    world.quiet(0)
    world.exit(*world.having(Life.DRAINING))
    world.exit("2.1", status=-9)
    world.sleep(30)
    assert [p.id.generation for p in world.serving()] == [2, 2, 2]


def test_p2_a_helper_that_is_to_go_is_unfed_and_quiet_before_it_is_told() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=9.0))
    world.ready("2.1", "2.2")
    world.exit("1.1", "1.2", status=-9)
    world.exit("2.1", status=-9)
    world.sleep(1)
    world.ready("1.1")
    done = world.sleep(400)
    feed = next(n for n, a in enumerate(done) if a == Feed(leases=((0, 1),)))
    assert feed < next(n for n, a in enumerate(done) if isinstance(a, Drain))


def test_p2_max_draining_does_not_kill_the_generation_that_helps_out() -> None:
    world = serving(workers=1, max_draining=0)
    world.reload(make_spec("v2", workers=2, probation=9.0))
    world.ready("2.1", "2.2")
    world.exit("1.1", status=-9)
    assert not killed(world.exit("2.1", status=-9))
    assert [str(p.id) for p in world.serving()] == ["2.2"]


# --- P4: who replaces whom -----------------------------------------------------------------------


def test_p4_a_worker_that_dies_during_a_rollout_is_replaced_by_its_own_version() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2))
    world.exit("1.1", status=-9)
    (replacement,) = (a for a in world.sleep(1) if isinstance(a, Spawn))
    assert replacement.spec.argv == ("v1",)


def test_p4_a_worker_of_the_current_generation_is_replaced_in_probation_too() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=9.0))
    world.ready("2.1", "2.2")
    world.exit("1.1", status=-9)
    assert spawned(world.sleep(1)) == ["1.1"]


# --- Leases --------------------------------------------------------------------------------------


def test_a_lease_that_is_not_quiet_is_not_given_to_the_next_generation() -> None:
    world = serving()
    world.reload(make_spec("v2", probation=0.0))
    world.ready("2.1")
    world.reload(make_spec("v3"))
    assert world.fleet.generations[3].lease == 2


def test_a_lease_left_with_connections_by_the_dead_is_not_given_to_the_next_generation() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.ready("2.1")
    world.exit("2.1", status=-11)
    world.reload(make_spec("v3"))
    assert world.fleet.generations[3].lease == 2


def test_the_queue_of_a_dead_generation_is_not_inherited_while_a_helper_serves_it() -> None:
    world = serving()
    world.exit("1.1", status=-9)
    world.reload(make_spec("v2", workers=2, probation=9.0))
    world.ready("2.1", "2.2")
    world.exit("2.1", status=-9)
    assert [str(p.id) for p in world.serving()] == ["2.2"]
    world.reload(make_spec("v3"))
    assert world.fleet.generations[3].lease == 1


def test_a_lease_that_is_quiet_and_unused_is_given_again() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.be_kind()
    world.reload(make_spec("v3"))
    assert world.fleet.generations[3].lease == 0


def test_connections_of_a_generation_that_died_are_taken_by_a_rescue_worker() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.ready("2.1")
    world.exit("2.1", status=-11)
    (rescue,) = (a for a in world.sleep(1) if isinstance(a, Spawn))
    assert (rescue.worker, rescue.lease) == (WorkerId(1, 2), 1)
    world.ready("1.2")
    assert drained(world.quiet(1)) == ["1.2"]


def test_a_rescue_that_boots_slowly_still_gets_the_time_to_empty_the_queue() -> None:
    world = serving(drain_timeout=5.0)
    world.reload(make_spec("v2"))
    world.ready("2.1")
    world.exit("2.1", status=-11)
    world.sleep(20)
    world.ready("1.2")
    assert not drained(world.sleep(4))
    assert drained(world.sleep(2)) == ["1.2"]


def test_connections_that_living_workers_do_not_take_are_taken_by_a_rescue_worker() -> None:
    world = serving(workers=2, drain_timeout=5.0)
    world.reload(make_spec("v2", probation=0.0))
    world.ready("2.1")
    done = world.sleep(5)
    assert drained(done) == ["1.1", "1.2"]
    (rescue,) = (a for a in done if isinstance(a, Spawn))
    assert (rescue.worker, rescue.lease) == (WorkerId(2, 2), 0)
    world.exit("1.1", "1.2")
    assert not spawned(world.ready("2.2"))
    assert drained(world.quiet(0)) == ["2.2"]


def test_workers_that_must_serve_until_the_commit_do_so_though_their_queue_is_late() -> None:
    world = serving(drain_timeout=5.0)
    world.reload(make_spec("v2", probation=20.0))
    world.ready("2.1")
    assert not drained(world.sleep(19))
    done = world.sleep(1)
    assert (drained(done), spawned(done)) == (["1.1"], ["2.2"])


def test_a_queue_that_a_rescue_worker_cannot_empty_either_is_given_up() -> None:
    world = serving(drain_timeout=5.0)
    world.reload(make_spec("v2", probation=0.0, drain_timeout=7.0))
    world.ready("2.1")
    world.sleep(5)
    world.ready("2.2")
    assert not drained(world.sleep(6.9))
    assert drained(world.sleep(0.1)) == ["2.2"]
    world.exit("1.1", "2.2")
    assert world.fleet.deadline == math.inf
    world.reload(make_spec("v3"))
    assert world.fleet.generations[3].lease == 0


def test_a_rescue_worker_that_dies_is_replaced_for_its_queue_is_not_forgotten() -> None:
    world = serving(drain_timeout=5.0)
    world.reload(make_spec("v2", probation=0.0))
    world.ready("2.1")
    world.sleep(5)
    world.ready("2.2")
    world.exit("2.2", status=-9)
    (rescue,) = (a for a in world.sleep(1) if isinstance(a, Spawn))
    assert rescue.lease == 0


def test_what_waits_is_not_forgotten_while_a_rollout_ends_the_time_with_nobody_wanted() -> None:
    world = serving(drain_timeout=5.0)
    world.reload(make_spec("v2", drain_timeout=5.0))
    world.ready("2.1")
    world.scale(0)
    world.reload(make_spec("v3", workers=2, probation=0.0))
    assert drained(world.sleep(10)) == ["1.1"]
    world.exit("1.1", "2.1")
    (rescue,) = (a for a in world.ready("3.1", "3.2") if isinstance(a, Spawn))
    assert rescue.lease == 0


def test_a_rescue_waits_for_a_generation_that_can_send_one() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.ready("2.1")
    world.exit("1.1", status=-9)
    world.exit("2.1", status=-11)
    world.sleep(50)
    world.ready("1.1")
    assert [str(w) for w in world.having(Life.BOOTING)] == ["1.2"]


# --- Recycling -----------------------------------------------------------------------------------


def test_a_recycled_worker_stays_until_its_successor_is_ready() -> None:
    world = serving()
    actions = world.recycle("1.1", "max_rss exceeded")
    assert spawned(actions) == ["1.2"]
    assert not drained(actions)
    assert world.ready("1.2") == [Drain(worker=WorkerId(1, 1), why="max_rss exceeded")]


def test_each_successor_lets_one_recycled_worker_go() -> None:
    world = serving(workers=3, start_concurrency=3)
    for slot in (1, 2, 3):
        world.recycle(f"1.{slot}")
    assert len(drained(world.ready("1.4"))) == 1
    assert len(drained(world.ready("1.5"))) == 1


def test_workers_that_age_faster_than_they_boot_do_not_pile_up() -> None:
    world = serving(workers=4, start_concurrency=1, max_age=5.0)
    for _ in range(30):
        world.sleep(6)
        world.ready(*world.having(Life.BOOTING))
        world.exit(*world.having(Life.DRAINING))
        assert len(world.processes) <= 4 + 2


def test_a_recycled_worker_does_not_bring_the_old_generation_back() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=3.0))
    world.ready("2.1", "2.2")
    world.recycle("2.1")
    world.sleep(3)
    assert world.fleet.current is not None
    assert world.fleet.current.number == 2
    assert world.fed == {1: 1}


# --- Exclusive -----------------------------------------------------------------------------------


def test_an_exclusive_generation_starts_when_the_last_other_worker_is_gone() -> None:
    world = serving(workers=2, exclusive=True)
    assert drained(world.reload(make_spec("v2", exclusive=True))) == ["1.1", "1.2"]
    assert not spawned(world.exit("1.1"))
    assert spawned(world.exit("1.2")) == ["2.1"]


def test_an_exclusive_rollout_that_fails_brings_the_old_version_back_when_it_is_alone() -> None:
    world = serving(exclusive=True)
    world.reload(make_spec("v2", exclusive=True, ready_timeout=5.0))
    world.exit("1.1")
    assert not spawned(world.sleep(5))
    assert spawned(world.exit("2.1", status=-9)) == ["1.1"]


def test_an_exclusive_worker_that_hangs_is_replaced_only_when_it_is_really_gone() -> None:
    world = World()
    world.start(make_spec("v1", exclusive=True, ready_timeout=5.0))
    assert not spawned(world.sleep(9))
    assert spawned(world.exit("1.1", status=-9)) == ["1.1"]


def test_an_exclusive_worker_that_is_recycled_goes_first() -> None:
    world = serving(exclusive=True)
    actions = world.recycle("1.1")
    assert drained(actions) == ["1.1"]
    assert not spawned(actions)
    assert spawned(world.exit("1.1")) == ["1.1"]


# --- Numbers -------------------------------------------------------------------------------------


def test_a_scaled_number_survives_a_reload_whose_own_number_did_not_change() -> None:
    world = serving(workers=2)
    world.scale(3)
    world.be_kind()
    world.reload(make_spec("v2", workers=2))
    world.be_kind()
    assert len(world.serving()) == 3
    world.reload(make_spec("v3", workers=4))
    world.be_kind()
    assert len(world.serving()) == 4


def test_scaling_during_a_rollout_holds_for_both_generations() -> None:
    world = serving(workers=1)
    world.reload(make_spec("v2", workers=1))
    world.scale(3)
    world.be_kind()
    assert [str(p.id) for p in world.serving()] == ["2.1", "2.2", "2.3"]


def test_scaling_down_in_a_rolling_rollout_ends_no_new_worker_for_want_of_room() -> None:
    world = serving(workers=8)
    world.reload(make_spec("v2", workers=8, surge=ONE))
    world.ready("2.1")
    world.exit(*[f"1.{slot}" for slot in range(1, 8)], status=-9)
    world.scale(1)
    assert WorkerId(2, 1) in world.having(Life.SERVING)
    world.be_kind()


def test_scaling_up_in_probation_drains_nobody_who_serves() -> None:
    world = serving(workers=1)
    world.exit("1.1", status=-9)
    quarter = Surge(amount=25, percent=True)
    world.reload(make_spec("v2", surge=quarter, probation=9.0))
    world.sleep(1)
    world.ready("1.1", "2.1")
    assert not drained(world.scale(2))
    world.be_kind()


def test_scaled_up_in_probation_the_old_generation_helps_after_the_commit_too() -> None:
    world = serving(workers=2, drain_timeout=0.0)
    world.reload(make_spec("v2", workers=1, probation=9.0))
    world.ready("2.1")
    world.scale(2)
    assert any(isinstance(a, Committed) for a in world.sleep(9))
    assert len(world.serving()) >= 2
    world.be_kind()


@pytest.mark.parametrize(
    "surge", [Surge(amount=1), Surge(amount=2), Surge(amount=25, percent=True)]
)
def test_a_rolling_rollout_runs_no_more_than_surge_allows(surge: Surge) -> None:
    world = serving(workers=8, start_concurrency=8)
    world.reload(make_spec("v2", workers=8, surge=surge, start_concurrency=8))
    allowed = 8 + surge.above(8)
    while world.fleet.trial and world.fleet.trial.phase is Phase.BOOTING:
        assert len(world.having(Life.BOOTING, Life.SERVING)) <= allowed
        assert len(world.serving()) >= 8
        world.ready(world.having(Life.BOOTING)[0])


def test_start_concurrency_bounds_how_many_boot_at_once() -> None:
    world = World()
    assert len(spawned(world.start(make_spec("v1", workers=5, start_concurrency=2)))) == 2
    assert spawned(world.ready("1.1")) == ["1.3"]


def test_many_spawns_are_spread_so_that_the_loop_can_breathe() -> None:
    world = World()
    actions = world.start(make_spec("v1", workers=20, start_concurrency=20))
    assert len(spawned(actions)) == SPAWN_BATCH
    assert world.fleet.deadline == world.now
    assert len(spawned(world.due())) == SPAWN_BATCH
    assert len(spawned(world.due())) == 20 - 2 * SPAWN_BATCH
    assert world.fleet.deadline > world.now


def test_what_two_generations_lack_is_spawned_in_one_batch() -> None:
    world = serving(start_concurrency=20)
    world.reload(make_spec("v2", start_concurrency=20))
    assert len(spawned(world.scale(7))) == SPAWN_BATCH


def test_scaled_to_nothing_a_rollout_commits_and_scaled_up_again_nobody_is_lost() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=9.0))
    world.ready("2.1", "2.2")
    assert isinstance(verdict(world.scale(0)), Committed)
    world.scale(3)
    world.be_kind()


def test_workers_of_a_rolling_rollout_are_fed_on_when_it_is_scaled_down_to_its_surge() -> None:
    world = World()
    spec = make_spec("v1", workers=10, surge=Surge(amount=2))
    world.start(spec)
    world.be_kind()
    world.reload(make_spec("v2", workers=10, surge=Surge(amount=2)))
    world.ready("2.1")
    for slot in range(2, 10):
        if f"1.{slot}" in map(str, world.having(Life.SERVING)):
            world.exit(f"1.{slot}", status=-9)
    assert len(world.fed) == 2
    world.scale(2)
    assert len(world.serving()) == 2


# --- Listeners that are removed ------------------------------------------------------------------


def test_who_may_wait_at_a_listener_that_is_removed_is_waited_for_once_it_is() -> None:
    world = serving(workers=2, listen=listening("a", "b"), drain_timeout=5.0)
    world.reload(make_spec("v2", workers=2, listen=listening("a")))
    world.ready("2.1", "2.2")
    world.quiet(0)  # but until the commit "b" is configured, and somebody may come
    assert not drained(world.sleep(0.6))
    assert drained(world.quiet(0)) == ["1.1", "1.2"]


def test_who_waits_at_a_listener_that_is_removed_is_not_waited_for_for_ever() -> None:
    world = serving(listen=listening("a", "b"), drain_timeout=5.0)
    world.reload(make_spec("v2", listen=listening("a")))
    world.ready("2.1")
    world.quiet(0)
    assert drained(world.sleep(6)) == ["1.1"]
