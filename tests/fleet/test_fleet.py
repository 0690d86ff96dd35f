"""What the fleet does, one claim a test. The world also holds every step against promises.py."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import astuple

import pytest

from sockmgr.config.spec import Accept, Rollout
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import BACKOFF_MAX, STEADY, Generation, Worker
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    Committed,
    Fact,
    Feed,
    FeedFailed,
    Phase,
    Quiet,
    Refuse,
    Reload,
    Serving,
    Spawn,
    State,
    Stopped,
    WorkerExited,
    WorkerId,
    WorkerReady,
)
from tests.fleet.reading import aborted, drained, killed, serving, spawned, verdict
from tests.fleet.story import BROKEN, make_spec
from tests.fleet.world import Life, World

# --- The first generation ------------------------------------------------------------------------


def test_the_first_generation_is_fed_before_it_is_ready_so_connections_wait_in_its_queue() -> None:
    world = World()
    actions = world.start(make_spec("v1", workers=2))
    assert isinstance(actions[0], Feed)
    assert spawned(actions) == ["1.1", "1.2"]


def test_serving_is_told_once_when_all_wanted_workers_are_ready() -> None:
    world = World()
    world.start(make_spec("v1", workers=2))
    assert not any(isinstance(a, Serving) for a in world.ready("1.1"))
    assert any(isinstance(a, Serving) for a in world.ready("1.2"))
    world.exit("1.2", status=1)
    world.sleep(1)
    assert not any(isinstance(a, Serving) for a in world.ready("1.2"))


def test_a_first_generation_that_crashes_is_tried_for_ever_ever_later() -> None:
    world = World()
    world.start(make_spec("v1"))
    waits = []
    for _ in range(14):
        assert not spawned(world.exit("1.1", status=1))
        waits.append(world.fleet.deadline - world.now)
        assert spawned(world.due()) == ["1.1"]
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == pytest.approx(BACKOFF_MAX)


def test_a_good_reload_mends_a_first_generation_that_crash_loops() -> None:
    world = World()
    world.start(make_spec("v1"))
    for _ in range(5):
        world.exit("1.1", status=1)
        world.due()
    world.exit("1.1", status=1)
    world.reload(make_spec("v2"))
    assert any(isinstance(a, Committed) for a in [*world.ready("2.1"), *world.sleep(5)])
    assert world.fleet.generations[2].lease == 0, "it inherits what waits in the queue"


def test_the_backoff_belongs_to_the_generation_so_a_good_one_starts_at_once() -> None:
    world = World()
    world.start(make_spec("v1"))
    for _ in range(8):
        world.exit("1.1", status=1)
        world.due()
    world.exit("1.1", status=1)
    assert spawned(world.reload(make_spec("v2"))) == ["2.1"]


def test_a_crash_loop_cannot_dodge_its_backoff_by_another_slot() -> None:
    world = serving(workers=3)
    world.exit("1.1", status=1)
    world.exit("1.2", status=1)
    assert not spawned(world.exit("1.3", status=1))
    assert world.fleet.deadline - world.now == pytest.approx(0.8)


def test_a_worker_that_was_steady_is_replaced_at_once() -> None:
    world = serving()
    world.wait(STEADY)
    assert spawned(world.exit("1.1", status=-9)) == ["1.1"]


def test_a_service_that_a_reload_adds_is_committed_like_any_other() -> None:
    world = World()
    assert spawned(world.reload(make_spec("v1"))) == ["1.1"]
    world.ready("1.1")
    assert isinstance(verdict(world.due()), Committed)


def test_a_service_that_a_reload_adds_and_that_fails_leaves_nothing_behind() -> None:
    world = World()
    world.reload(make_spec("v1", workers=2))
    world.ready("1.1")
    actions = world.exit("1.2", status=BROKEN)
    assert aborted(actions).kept == 0
    assert drained(world.quiet(0)) == ["1.1"]
    world.exit("1.1")
    assert not world.fleet.generations
    assert world.fleet.deadline == math.inf


def test_what_waits_for_an_added_service_that_died_is_left_to_the_next_attempt() -> None:
    world = World()
    world.reload(make_spec("v1"))
    world.ready("1.1")
    assert aborted(world.exit("1.1", status=-11)).kept == 0
    (spawn,) = world.reload(make_spec("v2"))
    assert isinstance(spawn, Spawn)
    assert spawn.lease == 0


# --- P5: everything ends -------------------------------------------------------------------------


def test_p5_a_worker_that_is_never_ready_ends_the_rollout_at_ready_timeout() -> None:
    world = serving()
    world.reload(make_spec("v2", ready_timeout=7.0))
    verdict_ = aborted(world.sleep(7))
    assert verdict_.reason == "worker 2.1 was not ready within 7 s"
    assert verdict_.worker == WorkerId(2, 1)


def test_p5_a_worker_that_ignores_its_stop_signal_is_killed_at_drain_timeout() -> None:
    world = serving(drain_timeout=4.0)
    world.stop()
    assert drained(world.quiet(0)) == ["1.1"]
    assert killed(world.sleep(4)) == ["1.1"]


def test_a_stop_serves_who_waits_before_the_workers_are_told_and_lets_nobody_come() -> None:
    world = serving(workers=2, drain_timeout=8.0)
    assert world.stop() == [Refuse()]
    assert not drained(world.sleep(1))
    assert drained(world.quiet(0)) == ["1.1", "1.2"]


def test_a_stop_takes_no_longer_than_drain_timeout_though_the_queue_is_never_empty() -> None:
    world = serving(drain_timeout=8.0)
    world.stop()
    assert drained(world.sleep(4)) == ["1.1"]
    assert killed(world.sleep(4)) == ["1.1"]


def test_after_a_stop_that_a_death_cut_short_no_two_workers_get_one_lease() -> None:
    world = serving(accept=Accept.PER_WORKER, start_concurrency=3)
    world.stop_now()
    world.scale(3)
    world.succeed()
    leases = [process.lease for process in world.processes.values() if process.active]
    assert len(leases) == len(set(leases)) == 3


def test_a_stop_does_not_wait_for_a_queue_that_nobody_serves() -> None:
    world = World()
    world.start(make_spec("v1"))
    assert drained(world.stop()) == ["1.1"]


def test_a_rollout_whose_workers_cannot_be_fed_is_aborted_and_the_old_ones_are_fed_again() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.ready("2.1")
    actions = world.tell(FeedFailed(error="too many open files"))
    assert aborted(actions).reason == (
        "new connections cannot be given to its workers: too many open files"
    )
    assert Feed(leases=((0, 1),)) in actions


def test_a_feed_that_failed_without_a_rollout_is_tried_again_after_a_second() -> None:
    world = serving()
    assert not world.tell(FeedFailed(error="too many open files"))
    assert not world.sleep(0.9)
    assert world.sleep(0.2) == [Feed(leases=((0, 1),))]
    assert world.fleet.deadline == math.inf


def test_p5_a_worker_that_outlives_kill_is_killed_again_and_again() -> None:
    world = serving()
    world.stop_now()
    assert killed(world.sleep(25)) == ["1.1", "1.1"]


def test_p5_a_first_worker_that_hangs_at_its_start_is_killed_and_replaced() -> None:
    world = World()
    world.start(make_spec("v1", ready_timeout=5.0))
    actions = world.sleep(6)
    assert killed(actions) == ["1.1"]
    assert spawned(actions) == ["1.2"]


def test_p5_a_rollout_that_never_gets_whole_ends_at_its_own_deadline() -> None:
    """Its workers become ready and are recycled before the last one is."""
    world = serving()
    world.reload(make_spec("v2", workers=2, start_concurrency=1, ready_timeout=10.0))
    ended: list[Action] = []
    while not ended:
        (worker,) = world.having(Life.BOOTING)
        world.now += 8
        done = world.ready(worker)
        ended = [a for a in done if isinstance(a, Committed | Aborted)]
        if not ended:
            world.recycle(worker)
    assert aborted(ended).reason == "not all of 2 workers were ready in time"


def test_p5_scaling_up_a_rollout_gives_it_the_time_that_the_new_workers_need() -> None:
    world = serving()
    world.reload(make_spec("v2", start_concurrency=1, ready_timeout=10.0, max_failed_starts=1))
    world.scale(5)
    for _ in range(5):
        world.sleep(9)
        world.ready(*[w for w in world.having(Life.BOOTING) if w.generation == 2])
    assert world.fleet.trial
    assert world.fleet.trial.phase is Phase.PROBATION


def test_p5_a_fleet_at_rest_has_no_deadline() -> None:
    assert serving(workers=3).fleet.deadline == math.inf


# --- P6: verdicts --------------------------------------------------------------------------------


def test_p6_a_storm_of_fifty_reloads_builds_two_generations_and_answers_all() -> None:
    world = serving()
    for number in range(50):
        world.reload(make_spec(f"release-{number}"))
    world.be_kind()
    assert sorted(world.answers) == list(range(1, 51))
    assert world.newest == 3
    assert world.fleet.current is not None
    assert world.fleet.current.spec.argv == ("release-49",)


def test_p6_a_reload_waits_for_the_rollout_under_way_and_then_begins_at_once() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    assert not world.reload(make_spec("v3"))
    actions = world.exit("2.1", status=BROKEN)
    assert aborted(actions).requests == (1,)
    assert spawned(actions) == ["3.1"]


def test_p6_stop_answers_the_rollout_under_way_and_the_one_that_waits() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.reload(make_spec("v3"))
    told = [a for a in world.stop() if isinstance(a, Aborted)]
    assert sorted(r for a in told for r in a.requests) == [1, 2]
    assert {a.reason for a in told} == {"the manager is stopping"}


def test_p6_a_reload_after_stop_is_refused_at_once() -> None:
    world = serving()
    world.stop()
    assert aborted(world.reload(make_spec("v2"))).reason == "the manager is stopping"


def test_p6_stop_is_told_when_the_last_worker_is_gone_and_only_once() -> None:
    world = serving(workers=2)
    world.stop()
    world.exit("1.1")
    assert world.exit("1.2") == [Stopped()]
    assert world.stop() == []


def test_p6_stop_drains_what_was_on_trial_and_does_not_kill_it() -> None:
    world = serving(max_draining=0)
    world.reload(make_spec("v2", max_draining=0))
    actions = [*world.stop(), *world.quiet(0)]
    assert drained(actions) == ["2.1", "1.1"]
    assert not killed(actions)


# --- P7: a reload that fails ---------------------------------------------------------------------


def test_p7_broken_code_aborts_at_the_first_exit() -> None:
    world = serving()
    world.reload(make_spec("v2", workers=2, max_failed_starts=9))
    failed = aborted(world.exit("2.2", status=BROKEN))
    assert failed.reason == "worker 2.2 exited with status 3 before it was ready"
    assert failed.kept == 1
    assert world.fed == {0: 1}


def test_p7_failed_starts_abort_when_there_are_too_many_and_say_how_many() -> None:
    world = serving()
    world.reload(make_spec("v2", max_failed_starts=2))
    world.exit("2.1", status=1)
    assert spawned(world.sleep(1)) == ["2.1"]
    failed = aborted(world.fail("2.1", "permission denied"))
    assert failed.reason == (
        "worker 2.1 could not be started: permission denied (2 failed starts, 2 allowed)"
    )


def test_p7_a_death_in_probation_goes_back_to_workers_that_never_left() -> None:
    world = serving(workers=2)
    world.reload(make_spec("v2", workers=2, probation=5.0))
    world.ready("2.1", "2.2")
    assert world.fed == {1: 1}
    world.quiet(0)
    assert not drained(world.sleep(4))
    world.exit("2.2", status=-11)
    assert world.fed == {0: 1}
    assert world.having(Life.SERVING) == [WorkerId(1, 1), WorkerId(1, 2), WorkerId(2, 1)]


def test_p7_nothing_is_committed_before_probation_is_over() -> None:
    world = serving()
    world.reload(make_spec("v2", probation=5.0))
    world.ready("2.1")
    assert not any(isinstance(a, Committed) for a in world.sleep(4.9))
    assert any(isinstance(a, Committed) for a in world.sleep(0.2))


def test_p7_the_next_reload_works() -> None:
    world = serving()
    world.reload(make_spec("v2"))
    world.exit("2.1", status=BROKEN)
    world.reload(make_spec("v3"))
    world.be_kind()
    assert isinstance(world.answers[2], Committed)


# --- Facts that come too late, and steps that are not allowed ------------------------------------


def test_facts_about_workers_that_are_gone_are_ignored() -> None:
    world = serving()
    for fact in (
        WorkerReady(worker=WorkerId(1, 9)),
        WorkerExited(worker=WorkerId(9, 1), status=0),
        Quiet(lease=7),
    ):
        assert world.tell(fact) == []


def test_readiness_that_comes_after_the_stop_signal_is_ignored() -> None:
    world = serving(workers=1)
    world.scale(2)
    world.scale(1)
    assert world.having(Life.DRAINING) == [WorkerId(1, 2)]
    assert world.ready("1.2") == []


def test_an_exit_in_the_instant_of_the_cut_over_aborts() -> None:
    world = serving()
    world.reload(make_spec("v2", probation=1.0))
    world.ready("2.1")
    assert aborted(world.exit("2.1", status=1)).reason == (
        "worker 2.1 exited with status 1, 0.0 s after it was ready"
    )


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.DRAINING])
def test_an_illegal_step_of_a_worker_raises_and_changes_nothing(state: State) -> None:
    worker = Worker(id=WorkerId(1, 1), lease=0, since=5.0, deadline=65.0, state=State.KILLED)
    before = copy(worker)
    with pytest.raises(ValueError, match=r"worker 1\.1 cannot go from killed to"):
        worker.become(state, 9.0)
    assert astuple(worker) == astuple(before)


@pytest.mark.parametrize("phase", [Phase.BOOTING, Phase.PROBATION, Phase.GONE])
def test_an_illegal_step_of_a_generation_raises_and_changes_nothing(phase: Phase) -> None:
    generation = Generation(
        number=1,
        spec=make_spec("v1"),
        lease=0,
        wanted=1,
        since=5.0,
        deadline=65.0,
        phase=Phase.CURRENT,
        roster=Fleet().roster(),
    )
    with pytest.raises(ValueError, match="generation 1 cannot go from current to"):
        generation.become(phase, 9.0)
    assert generation.phase is Phase.CURRENT
    assert generation.deadline == 65.0


def test_the_same_facts_at_the_same_times_give_the_same_actions() -> None:
    facts: list[Fact] = [
        Reload(spec=make_spec("v1", workers=3), request=1),
        WorkerReady(worker=WorkerId(1, 1)),
    ]
    first, second = Fleet(), Fleet()
    assert [first.handle(f, 1.0) for f in facts] == [second.handle(f, 1.0) for f in facts]


def test_a_rollout_is_by_default_all_beside_the_old_with_a_probation() -> None:
    assert str(Rollout().surge) == "all"
    assert Rollout().probation > 0
