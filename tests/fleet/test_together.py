"""Services that go together: all cut over, all commit or all go back, whoever dies in between."""

from __future__ import annotations

import random

import pytest

from sockmgr.config.spec import Canary
from sockmgr.fleet.generation import HURRY
from sockmgr.fleet.group import Gate
from sockmgr.fleet.messages import Aborted, Committed, Let, Reload, Tick, Together
from tests.fleet.company import Company, number
from tests.fleet.reading import drained
from tests.fleet.reading import serving as serving_world
from tests.fleet.story import BROKEN, make_spec
from tests.fleet.world import World

V1, V2, V3 = (make_spec(name) for name in ("v1", "v2", "v3"))


def serving(*names: str) -> Company:
    company = Company()
    company.start(**dict.fromkeys(names, V1))
    for name in names:
        company.ready(name)
    company.settle()
    return company


def reloading(*names: str) -> Company:
    """Return services of which all boot a second generation, together."""
    company = serving(*names)
    company.reload(**dict.fromkeys(names, V2))
    company.settle()
    assert company.phases() == dict.fromkeys(names, "booting")
    return company


def test_nobody_cuts_over_before_all_are_ready() -> None:
    company = reloading("a", "b")
    company.ready("a")
    company.sleep(30)
    assert company.phases() == {"a": "booting", "b": "booting"}
    company.ready("b")
    company.settle()
    assert company.phases() == {"a": "probation", "b": "probation"}
    company.sleep(1)
    assert (number(company, "a"), number(company, "b")) == (2, 2)


def test_one_that_is_ready_is_not_late_while_it_waits_for_another() -> None:
    slow = make_spec("v2", ready_timeout=1000.0)
    company = serving("a", "b")
    company.reload(a=V2, b=slow)
    company.settle()
    company.ready("a")
    company.sleep(999)
    company.ready("b")
    company.sleep(1)
    assert (number(company, "a"), number(company, "b")) == (2, 2)


def test_nobody_commits_before_each_has_passed_its_own_probation() -> None:
    company = serving("a", "b")
    company.reload(a=make_spec("v2", probation=1.0), b=make_spec("v2", probation=60.0))
    company.settle()
    company.ready("a")
    company.ready("b")
    company.sleep(59)
    assert company.phases() == {"a": "probation", "b": "probation"}
    company.sleep(2)
    assert (number(company, "a"), number(company, "b")) == (2, 2)


@pytest.mark.parametrize("cut_over", [False, True], ids=["while booting", "in probation"])
def test_all_go_back_if_one_fails_and_the_verdicts_say_with_whom(cut_over: bool) -> None:
    company = reloading("a", "b", "c")
    for name in ("a", "b", "c") if cut_over else ("a",):
        company.ready(name)
    company.settle()
    company.exit("b", 2, status=BROKEN)
    company.settle()
    assert company.phases() == {}
    assert [number(company, name) for name in "abc"] == [1, 1, 1]
    failed = company.verdicts("b")[-1]
    assert isinstance(failed, Aborted)
    assert (failed.failed, failed.worker is not None) == ("", True)
    for name in ("a", "c"):
        back = company.verdicts(name)[-1]
        assert isinstance(back, Aborted)
        assert (back.failed, back.reason) == ("b", "b was taken back, and they go together")


def test_a_service_that_is_never_ready_takes_the_others_back_at_its_deadline() -> None:
    company = reloading("a", "b")
    company.ready("a")
    company.sleep(1000)
    assert company.phases() == {}
    assert {len(company.verdicts(name)) for name in "ab"} == {1}


def test_a_group_waits_for_rollouts_under_way_and_nobody_of_it_begins_before() -> None:
    company = serving("a", "b")
    company.reload(together=False, a=V2)
    company.settle()
    company.reload(a=V3, b=V3)
    company.settle()
    assert company.phases() == {"a": "booting"}
    company.ready("a")
    company.sleep(1)
    assert company.phases() == {"a": "booting", "b": "booting"}
    assert number(company, "a") == 2


def test_reloads_that_come_while_a_group_waits_become_one_group() -> None:
    company = serving("a", "b", "c")
    company.reload(together=False, b=V2)
    company.settle()
    company.reload(a=V2, b=V2)
    company.reload(b=V3, c=V3)
    company.reload(together=False, a=V3)
    company.settle()
    company.ready("b")
    company.sleep(1)
    groups = {fleet.trial.together.services for fleet in company.fleets.values()
              if fleet.trial and fleet.trial.together}  # fmt: skip
    assert groups == {("a", "b", "c")}
    assert len({fleet.last for fleet in company.fleets.values()}) == 2, "b had one rollout more"


def test_a_newer_reload_waits_for_the_group_under_way_and_each_gets_its_verdict() -> None:
    company = reloading("a", "b")
    company.reload(a=V3, b=V3)
    company.settle()
    for _ in range(2):
        company.ready("a")
        company.ready("b")
        company.sleep(1)
    assert (number(company, "a"), number(company, "b")) == (3, 3)
    assert [v.requests for v in company.verdicts("a")] == [(1,), (3,)]


def test_a_service_that_the_reload_adds_goes_with_the_others() -> None:
    company = serving("a")
    company.reload(a=V2, new=V1)
    company.settle()
    company.ready("new")
    company.exit("a", 2, status=BROKEN)
    company.settle()
    assert isinstance(company.verdicts("new")[-1], Aborted)
    assert company.fleets["new"].current is None


def deciding() -> Company:
    """Return two services that have just been let commit, and have not taken that yet."""
    company = reloading("a", "b")
    company.ready("a")
    company.ready("b")
    company.settle()
    company.now += 1
    for name in "ab":
        company.put(name, Tick())
    while not any(isinstance(fact, Let) for fact in company.facts["b"]):
        assert company.step()
    return company


def test_a_death_that_is_heard_after_the_commit_was_decided_splits_nothing() -> None:
    company = deciding()
    company.exit("b", 2)
    company.settle()
    assert (number(company, "a"), number(company, "b")) == (2, 2)


def test_if_one_had_committed_when_the_manager_died_the_others_do_whatever_became_of_them() -> None:
    company = deciding()
    company.step("a")
    assert not company.fleets["a"].trial
    assert company.fleets["b"].trial, "it was let commit, and has not heard of it"
    company.exit("b", 2)
    company.die()
    company.settle()
    assert (number(company, "a"), number(company, "b")) == (2, 2)


def test_if_one_was_taken_back_when_the_manager_died_so_are_the_others() -> None:
    company = reloading("a", "b")
    company.ready("a")
    company.exit("b", 2, status=BROKEN)
    while company.fleets["b"].trial:
        company.step()
    assert company.fleets["a"].trial
    company.die()
    company.sleep(1000)
    assert (number(company, "a"), number(company, "b")) == (1, 1)
    assert company.phases() == {}


@pytest.mark.parametrize("seed", range(60))
def test_no_group_is_ever_split_and_every_rollout_ends_whoever_dies_when(seed: int) -> None:
    chance = random.Random(seed)
    names = "abc"
    company = serving(*names)
    for _ in range(60):
        match chance.randrange(9):
            case 0:
                chosen = chance.sample(names, chance.randint(1, 3))
                company.reload(together=chance.random() < 0.7, **dict.fromkeys(chosen, V2))
            case 1 | 2:
                company.ready(chance.choice(names))
            case 3 if (name := chance.choice(names)) and (trial := company.fleets[name].trial):
                company.exit(name, trial.number, status=chance.choice([1, BROKEN]))
            case 4:
                company.die()
            case 5:
                company.sleep(chance.choice([0.1, 0.6, 5.0]))
            case _:
                for _ in range(chance.randint(1, 5)):
                    company.step(chance.choice(names))
    for _ in range(9):
        for name in names:
            company.ready(name)
        company.sleep(5)
    assert company.phases() == {}
    assert all(fleet.pending is None for fleet in company.fleets.values())
    assert all(len(set(ends.values())) == 1 for ends in company.joint.values())


def test_what_a_group_came_to_is_told_to_everybody_who_asked() -> None:
    company = reloading("a", "b")
    company.ready("a")
    company.ready("b")
    company.sleep(1)
    assert [type(company.verdicts(name)[0]) for name in "ab"] == [Committed, Committed]
    assert [company.verdicts(name)[0].requests for name in "ab"] == [(1,), (2,)]


# --- Whom clients may not meet yet ---------------------------------------------------------------


def getting(world: World, **settings: object) -> None:
    """Have a reload begin that gets the listener of another service, and be let start."""
    spec = make_spec("v2", foreign=frozenset({9}), **settings)
    world.tell(Reload(spec=spec, request=9, together=Together(group=1, let=Gate.START)))


def test_one_who_gets_the_listener_of_another_and_is_ready_does_not_count_as_one_who_serves() -> (
    None
):
    world = serving_world()
    getting(world)
    for _ in range(9):
        world.exit("1.1", status=1)
        world.due()
    world.exit("1.1", status=1)
    world.ready("2.1")
    assert not world.fleet.serves
    assert world.fleet.starves
    world.clients_wait()
    assert world.fleet.deadline == pytest.approx(world.now + HURRY)


def test_one_who_was_to_get_a_listener_and_goes_back_helps_nobody_and_takes_no_help_away() -> None:
    world = serving_world()
    world.reload(make_spec("v2", canary=Canary(shares=(10,), hold=True)))
    world.ready("2.1")
    getting(world, workers=2, start_concurrency=2)  # so the canary is taken back
    world.ready("3.1")
    world.exit("1.1", status=1)
    assert drained(world.exit("3.2", status=BROKEN)) == ["3.1"]
    (helper,) = world.serving()
    assert str(helper.id) == "2.1"
