"""Hooks that a rollout waits for: when each runs, and what its end means."""

from __future__ import annotations

from typing import Any

import pytest

from sockmgr.config.hooks import Moment
from sockmgr.config.spec import Spec, Surge
from sockmgr.fleet.hooks import END_AGAIN
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    Committed,
    CutOver,
    Drain,
    EndHook,
    RunHook,
    Serving,
    Spawn,
    Stopped,
)
from tests.fleet.story import hooked, make_spec
from tests.fleet.world import Life, World

BOTH = hooked(before=5, ready=5)


def spec(name: str = "v2", **settings: Any) -> Spec:
    return make_spec(name, **{"hooks": BOTH, **settings})


def serving(**settings: Any) -> World:
    """Return a world in which version 1, without hooks, serves by two workers."""
    world = World()
    world.start(make_spec("v1", workers=2, **settings))
    world.be_kind()
    return world


def of(kind: type, actions: list[Action]) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


def test_no_worker_of_a_new_generation_starts_before_its_hook_has_ended_well() -> None:
    world = serving()
    first = world.reload(spec(workers=2))
    assert [(run.generation, run.moment) for run in of(RunHook, first)] == [(2, Moment.BEFORE)]
    assert not of(Spawn, first + world.sleep(4.9))
    assert len(of(Spawn, world.hook_ends())) == 2


def test_what_serves_is_left_alone_until_then_also_by_an_exclusive_or_a_rolling_rollout() -> None:
    for settings in ({"exclusive": True}, {"surge": Surge(amount=1)}):
        world = serving()
        actions = world.reload(spec(workers=2, **settings)) + world.sleep(4.9)
        assert not of(Drain, actions)
        assert len(world.having(Life.SERVING)) == 2


def test_a_hook_that_fails_aborts_with_its_reason_and_nothing_was_started() -> None:
    world = serving()
    world.reload(spec())
    actions = world.hook_ends("exited with status 3")
    (verdict,) = of(Aborted, actions)
    assert (verdict.reason, verdict.kept) == ("hook before exited with status 3", 1)
    assert not of(Spawn, actions)


def test_a_cut_over_waits_for_the_hook_ready_which_is_asked_once_all_are() -> None:
    world = serving()
    world.reload(spec(workers=2))
    world.hook_ends()
    assert not of(RunHook, world.ready("2.1"))
    actions = world.ready("2.2")
    assert [run.moment for run in of(RunHook, actions)] == [Moment.READY]
    assert not of(CutOver, actions)
    assert of(CutOver, world.hook_ends())


@pytest.mark.parametrize("fault", ["exited with status 1", ""])
def test_a_verdict_on_a_hook_shows_what_the_hook_said_and_no_worker_that_failed_before(
    fault: str,
) -> None:
    world = serving()
    world.reload(spec(workers=2, max_failed_starts=3))
    world.hook_ends()
    world.exit("2.1", status=1)
    world.sleep(2)
    world.ready("2.1", "2.2")
    [aborted] = of(Aborted, world.hook_ends(fault) if fault else world.sleep(6))
    assert aborted.reason.startswith("hook ready")
    assert aborted.worker is None


def test_a_worker_that_dies_meanwhile_aborts_and_its_hook_is_ended() -> None:
    world = serving()
    world.reload(spec(workers=2))
    world.hook_ends()
    world.ready("2.1", "2.2")
    actions = world.exit("2.1", status=1)
    assert of(Aborted, actions)
    assert [end.moment for end in of(EndHook, actions)] == [Moment.READY]


def test_a_hook_that_takes_too_long_aborts_at_once_and_no_other_begins_before_it_is_dead() -> None:
    world = serving()
    world.reload(spec("v2"))
    world.reload(spec("v3"))
    actions = world.due()
    (verdict,) = of(Aborted, actions)
    assert verdict.reason == "hook before did not end within 5 s"
    assert of(EndHook, actions)
    assert not of(RunHook, actions)
    again = world.sleep(END_AGAIN)
    assert [end.why for end in of(EndHook, again)] == ["still there after SIGKILL"]
    # It may even say that all went well: nobody waits for that any more.
    (run,) = of(RunHook, world.hook_ends())
    assert run.generation == 3


def test_what_was_told_to_end_lets_nothing_go_on_though_it_ends_well() -> None:
    world = World()
    world.start(spec("v1"))
    world.due()  # its time is over
    assert world.hook_is_dying
    assert not of(Spawn, world.hook_ends())
    assert of(RunHook, world.sleep(1))


def test_a_rollout_that_waits_for_a_hook_that_does_not_die_has_an_end_too() -> None:
    world = serving()
    world.reload(spec("v2"))
    world.reload(spec("v3"))
    world.due()
    verdicts = of(Aborted, world.sleep(1000))
    assert "hook before could not begin: hook before of 2 does not die" in verdicts[0].reason


def test_the_workers_have_all_of_their_time_however_long_a_hook_took() -> None:
    world = serving()
    long = hooked(before=1000, ready=1000)
    world.reload(spec(workers=1, ready_timeout=5, hooks=long, max_failed_starts=1))
    world.sleep(900)
    world.hook_ends()
    world.sleep(4)
    world.ready("2.1")
    world.sleep(900)
    assert of(CutOver, world.hook_ends())
    assert of(Committed, world.sleep(1))


def test_a_first_start_tries_its_hook_again_later_each_time_and_asks_for_no_ready() -> None:
    world = World()
    (run,) = of(RunHook, world.start(spec("v1")))
    pauses = []
    for _ in range(4):
        world.hook_ends("exited with status 1")
        began = world.now
        assert not of(RunHook, world.clients_wait())
        world.due()
        pauses.append(world.now - began)
        assert world.hook == (1, run.moment)
    assert pauses == sorted(set(pauses))
    assert len(of(Spawn, world.hook_ends())) == 1
    assert of(Serving, world.ready("1.1"))


def test_successors_and_more_workers_need_no_hook() -> None:
    world = serving()
    world.reload(spec(workers=2))
    world.be_kind()
    actions = world.scale(4) + world.exit("2.1", status=1) + world.sleep(5)
    assert of(Spawn, actions)
    assert not of(RunHook, actions)


def test_a_stop_ends_the_hook_and_waits_for_its_end() -> None:
    world = World()
    world.start(spec("v1"))
    actions = world.stop()
    assert of(EndHook, actions)
    assert not of(Stopped, actions)
    assert of(Stopped, world.hook_ends("was killed"))


def test_the_next_manager_waits_for_the_hook_and_asks_none_again_that_let_it_go_on() -> None:
    world = serving()
    world.reload(spec(workers=1))
    assert not of(RunHook, world.succeed())
    assert of(Spawn, world.hook_ends())
    assert not of(RunHook, world.succeed())
    assert [run.moment for run in of(RunHook, world.ready("2.1"))] == [Moment.READY]
    assert not of(RunHook, world.succeed())
    assert of(CutOver, world.hook_ends())


def test_a_hook_that_was_told_to_end_is_still_waited_for_by_the_next_manager() -> None:
    world = serving()
    world.reload(spec("v2"))
    world.due()
    world.succeed()
    assert world.hook_is_dying
    assert not of(RunHook, world.reload(spec("v3")))
    assert of(RunHook, world.hook_ends("was killed"))
