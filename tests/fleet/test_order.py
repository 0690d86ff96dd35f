"""In which order services start and stop, and for how long one waits for another."""

from __future__ import annotations

import math

import pytest

from sockmgr.config.hooks import Hook, Hooks
from sockmgr.config.spec import Accept
from sockmgr.fleet import order
from sockmgr.fleet.generation import rollout_timeout
from sockmgr.fleet.messages import Committed, Spawn, WaitedInVain
from tests.fleet.company import Company
from tests.fleet.story import make_spec
from tests.fleet.world import World

DB = make_spec("db")
WEB = make_spec("web", after=("db",))
LIMIT = rollout_timeout(DB, 1, None)


def started() -> Company:
    company = Company()
    company.start(db=DB, web=WEB)
    return company


def test_a_service_starts_when_all_workers_of_those_it_is_after_are_ready() -> None:
    company = Company()
    company.start(db=make_spec("db", workers=2), web=WEB)
    assert company.workers("web") == []
    assert company.fleets["web"].is_held
    company.ready("db")
    company.settle()
    assert len(company.workers("web")) == 1
    assert not company.fleets["web"].is_coupled


def test_it_starts_anyway_and_says_so_when_the_other_had_its_time() -> None:
    company = started()
    company.sleep(LIMIT - 1)
    assert company.workers("web") == []
    company.sleep(2)
    assert len(company.workers("web")) == 1
    assert company.told["web"] == [WaitedInVain(generation=1)]


def test_clients_do_not_hurry_a_service_that_waits_for_another() -> None:
    company = started()
    assert not company.fleets["web"].starves


def test_the_wait_goes_on_where_it_was_when_the_manager_dies() -> None:
    company = started()
    company.sleep(LIMIT / 2)
    company.die()
    company.settle()
    assert company.workers("web") == []
    company.sleep(LIMIT / 2 + 1)
    assert len(company.workers("web")) == 1


def test_a_service_that_a_reload_adds_waits_and_then_has_all_its_time() -> None:
    company = Company()
    company.start(db=DB)
    company.reload(together=False, web=WEB)
    company.settle()
    assert company.workers("web") == []
    company.sleep(30)
    company.ready("db")
    company.settle()
    trial = company.fleets["web"].trial
    assert trial
    assert trial.deadline == company.now + rollout_timeout(WEB, 1, None)
    company.ready("web")
    company.sleep(1)
    assert isinstance(company.verdicts("web")[-1], Committed)


def test_a_reload_of_a_service_that_serves_waits_for_nobody() -> None:
    company = started()
    company.ready("db")
    company.settle()
    company.ready("web")
    company.settle()
    company.exit("db", 1)
    company.reload(together=False, web=WEB)
    company.settle()
    assert len(company.workers("web")) == 2


def test_nobody_waits_for_one_that_is_not_there_or_has_ended() -> None:
    company = Company()
    company.start(web=WEB)
    assert len(company.workers("web")) == 1


def test_each_of_a_chain_has_its_time() -> None:
    specs = {"a": DB, "b": make_spec("b", after=("a",)), "c": make_spec("c", after=("b", "a"))}
    assert [order.patience(name, specs) for name in "abc"] == [0.0, LIMIT, 2 * LIMIT]
    drain = DB.drain_timeout + order.KILLED
    assert [order.stop_patience(name, specs) for name in "abc"] == [2 * drain, drain, 0.0]


def test_those_that_are_after_a_service_end_before_it() -> None:
    after = {"a": (), "b": ("a",), "c": ("b", "a"), "d": ()}
    assert [order.followers(name, after) for name in "abcd"] == [["b", "c"], ["c"], [], []]


def test_the_hook_of_an_added_service_waits_for_those_it_is_after_as_well() -> None:
    company = Company()
    company.start(db=DB)
    hooks = Hooks(before=Hook(argv=("migrate",)))
    company.reload(together=False, web=make_spec("web", after=("db",), hooks=hooks))
    company.settle()
    assert company.fleets["web"].hook is None
    company.ready("db")
    company.settle()
    assert company.fleets["web"].hook is not None


@pytest.mark.parametrize("accept", [Accept.SHARED, Accept.PER_WORKER])
def test_a_new_generation_gets_no_lease_that_another_service_has_on_its_listeners(
    accept: Accept,
) -> None:
    world = World()
    world.start(make_spec("v1", workers=2, accept=accept))
    world.ready("1.1", "1.2")
    used = set(world.fleet.leases)
    taken = {lease + len(used) for lease in used}
    spec = make_spec("v2", workers=2, accept=accept, foreign=frozenset(taken))
    spawns = [action for action in world.reload(spec) if isinstance(action, Spawn)]
    assert not {spawn.lease for spawn in spawns} & (used | taken)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_circle_of_two_configs_taken_over_in_part_makes_nobody_wait(name: str) -> None:
    specs = {"a": make_spec("a", after=("b",)), "b": make_spec("b", after=("a",))}
    assert order.followers(name, {each: spec.after for each, spec in specs.items()}) == []
    assert order.stop_patience(name, specs) == 0
    assert order.patience(name, specs) < math.inf
