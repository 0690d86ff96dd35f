"""What is remembered of generations, and which of them a service can go back to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from sockmgr.api.varlink import PastGeneration
from sockmgr.config.spec import Canary, Spec, Surge
from sockmgr.errors import ControlError
from sockmgr.fleet.history import ENTRIES_MAX, SPECS_MAX, History, Origin, brought_back
from sockmgr.fleet.messages import Action, Fact
from tests.fleet.story import BROKEN, listening, make_spec
from tests.fleet.world import World

WALL = 1_000_000.0


@dataclass
class Remembering(World):
    """A world whose history is written down."""

    history: History = field(default_factory=History)
    origin: Origin = field(default_factory=lambda: Origin(kind="reload"))

    def tell(self, fact: Fact) -> list[Action]:
        actions = super().tell(fact)
        self.history.follow(self.fleet, actions, self.origin, self.now, WALL + self.now)
        return actions

    def run(self, spec: Spec, name: str = "") -> int:
        """Have this spec committed; return the number of its generation."""
        (self.reload if self.fleet.current else self.start)(spec)
        number = self.fleet.last
        if name:
            self.history.name(number, name)
        self.ready(f"{number}.1")
        self.sleep(1)
        for worker in [w for w in self.fleet.workers() if w.id.generation < number]:
            self.exit(worker.id)
        return number

    def fail_one(self, name: str = "broken") -> int:
        self.reload(make_spec(name))
        self.exit(f"{self.fleet.last}.1", status=BROKEN)
        return self.fleet.last

    def back(self, to: int | None = None) -> tuple[int, str]:
        number, kept = self.history.target(self.fleet.current, to)
        return number, kept.spec.argv[0]

    def told(self, number: int) -> PastGeneration:
        return {each.generation: each for each in self.history.told("web", self.now)}[number]


@pytest.fixture
def world() -> Remembering:
    return Remembering()


def test_the_way_back_is_the_generation_committed_before(world: Remembering) -> None:
    for name in ("v1", "v2", "v3"):
        world.run(make_spec(name))
    assert world.back() == (2, "v2")
    assert world.back(1) == (1, "v1")


def test_two_ways_back_in_a_row_lead_to_and_fro(world: Remembering) -> None:
    for name in ("v1", "v2", "v3"):
        world.run(make_spec(name))
    _, kept = world.history.target(world.fleet.current, None)
    world.run(kept.spec)
    assert world.back() == (3, "v3")


def test_a_generation_that_was_aborted_is_no_way_back(world: Remembering) -> None:
    world.run(make_spec("v1"))
    failed = world.fail_one()
    world.run(make_spec("v2"))
    assert world.back() == (1, "v1")
    with pytest.raises(ControlError, match=f"generation {failed} was aborted: worker 2.1 exited"):
        world.back(failed)


def test_a_reload_of_the_same_is_no_other_release(world: Remembering) -> None:
    for name in ("v1", "v2", "v2", "v2"):
        world.run(make_spec(name))
    assert world.back() == (1, "v1")
    with pytest.raises(ControlError, match="generation 3 ran what 4 runs: the same command in /"):
        world.back(3)


def test_another_number_of_workers_or_rule_of_a_rollout_is_no_other_release(
    world: Remembering,
) -> None:
    world.run(make_spec("v1"))
    world.run(make_spec("v1", surge=Surge(amount=1)))
    with pytest.raises(ControlError, match="generation 1 ran what 2 runs"):
        world.back()


def test_the_same_command_under_another_name_is_another_release(world: Remembering) -> None:
    world.run(make_spec("v"), "a")
    world.run(make_spec("v"), "b")
    number, kept = world.history.target(world.fleet.current, None)
    assert (number, kept.release) == (1, "a")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (None, "nothing is known of what ran before generation 1"),
        (1, "generation 1 is what runs"),
        (2, "nothing is known of a generation 2"),
    ],
)
def test_without_a_generation_before_there_is_no_way_back(
    to: int | None, why: str, world: Remembering
) -> None:
    world.run(make_spec("v1"))
    with pytest.raises(ControlError, match=why) as refused:
        world.back(to)
    assert refused.value.means == "nothing was changed"


def test_a_first_generation_that_never_served_is_no_way_back(world: Remembering) -> None:
    world.start(make_spec("v1"))
    with pytest.raises(ControlError, match="nothing is known"):
        world.back()
    world.exit("1.1", status=BROKEN)
    world.run(make_spec("v2"))
    with pytest.raises(ControlError, match="nothing is known"):
        world.back()
    assert (world.told(1).verdict, world.told(1).served) == ("", None)


def test_a_generation_on_trial_is_no_way_back(world: Remembering) -> None:
    world.run(make_spec("v1"))
    world.reload(make_spec("v2"))
    with pytest.raises(ControlError, match="generation 2 was never committed"):
        world.back(2)


def test_few_specs_are_kept_and_the_oldest_goes_first(world: Remembering) -> None:
    for number in range(SPECS_MAX + 2):
        world.run(make_spec(f"v{number}"))
    kept = [number for number in range(1, SPECS_MAX + 3) if world.told(number).kept]
    assert kept == list(range(3, SPECS_MAX + 2))  # the last one serves
    with pytest.raises(ControlError, match="how generation 2 was run is not kept any more"):
        world.back(2)


def test_how_a_generation_came_when_how_long_and_how_it_ended_is_told(world: Remembering) -> None:
    world.origin = Origin(kind="start")
    world.run(make_spec("v1"), "one")
    world.sleep(9)
    world.origin = Origin(kind="reload", by="root")
    began = world.now
    world.run(make_spec("v2"))
    world.origin = Origin(kind="rollback", by="root", to=1)
    failed = world.fail_one()
    first, second, third = (world.told(number) for number in (1, 2, failed))
    assert (first.origin, first.release, first.verdict, first.serves) == (
        "start", "one", "committed", False,
    )  # fmt: skip
    assert first.served == pytest.approx(10.5)
    assert (second.origin, second.by, second.began) == ("reload", "root", WALL + began)
    assert (second.serves, second.served, second.directory) == (True, pytest.approx(0.5), "/")
    assert (third.origin, third.rollback, third.verdict, third.served) == (
        "rollback", 1, "aborted", None,
    )  # fmt: skip
    assert third.reason == "worker 3.1 exited with status 3 before it was ready"


def test_the_history_is_bounded_and_never_without_the_one_that_serves(world: Remembering) -> None:
    world.run(make_spec("v1"))
    for _ in range(ENTRIES_MAX + 5):
        world.fail_one()
    told = [each.generation for each in world.history.told("web", world.now)]
    assert len(told) == ENTRIES_MAX
    assert told[0] == 1
    assert world.told(1).serves


# --- The next manager ----------------------------------------------------------------------------


def again(world: Remembering) -> History:
    return History.read(world.history.record)


def test_the_next_manager_knows_all_that_this_one_did(world: Remembering) -> None:
    env = (("NOT_UTF_8", "\udcff"), ("LINES", "a\nb"))
    world.run(replace(make_spec("v1"), env=env), "one")
    world.run(make_spec("v2"))
    world.fail_one()
    before = (
        list(world.history.told("web", world.now)),
        world.history.target(world.fleet.current, 1),
    )
    world.history = again(world)
    assert before == (
        list(world.history.told("web", world.now)), world.history.target(world.fleet.current, 1),
    )  # fmt: skip


def test_what_is_kept_takes_little_more_than_one_environment(world: Remembering) -> None:
    env = tuple((f"VARIABLE_{n}", f"{n * 7919:x}" * 8) for n in range(100))
    world.run(replace(make_spec("v0"), env=(*env, ("PWD", "/srv/0"))))
    one = len(world.history.record)
    for number in range(1, 60):
        cwd = f"/srv/{number}"
        world.run(replace(make_spec(f"v{number}"), cwd=cwd, env=(*env, ("PWD", cwd))))
    assert len(world.history.record) < one + 4000


def test_a_state_without_a_history_gives_one_of_the_generation_that_serves(
    world: Remembering,
) -> None:
    world.run(make_spec("v1"))
    world.run(make_spec("v2"))
    world.sleep(5)
    world.history = History()
    assert [g.number for g in world.history.resume(world.fleet, world.now, WALL)] == [2]
    told = world.told(2)
    assert (told.origin, told.verdict, told.serves) == ("", "committed", True)
    assert told.served == pytest.approx(5.5)
    with pytest.raises(ControlError, match="nothing is known of what ran before generation 2"):
        world.back()
    world.run(make_spec("v3"))
    assert world.back() == (2, "v2")


@pytest.mark.parametrize("record", [b"x", b"x\x9c\xab\x05\x00", History().record[:-3]])
def test_a_history_that_cannot_be_read_is_said_to_be_none(record: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        History.read(record)


# --- What is brought back ------------------------------------------------------------------------


def specs(**now: Any) -> tuple[Spec, Spec]:
    was = make_spec("v1", workers=2, listen=listening("http"))
    return was, make_spec("v2", **{"workers": 5, "listen": listening("http"), **now})


def test_what_is_brought_back_keeps_the_workers_and_the_rollout_of_now() -> None:
    was, now = specs(max_failed_starts=9)
    back = brought_back(1, was, now)
    assert (back.argv, back.workers, back.rollout) == (was.argv, 5, now.rollout)


def test_what_is_brought_back_is_no_canary() -> None:
    was, now = specs()
    now = replace(now, rollout=replace(now.rollout, canary=Canary(shares=(10,))))
    assert brought_back(1, was, now).rollout == was.rollout


def test_it_takes_the_listeners_of_now_in_the_order_of_then() -> None:
    was = make_spec("v1", listen=listening("a", "b"))
    b, a = (replace(listen, backlog=9) for listen in listening("b", "a"))
    assert brought_back(1, was, make_spec("v2", listen=(b, a))).listen == (a, b)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("http", "new"), "new was not there, and is unix-abstract:new"),
        ((), "http was unix-abstract:http, and is not there"),
    ],
)
def test_other_listeners_than_those_of_now_are_no_way_back(
    names: tuple[str, ...], what: str
) -> None:
    was, now = specs(listen=listening(*names))
    with pytest.raises(ControlError, match=f"generation 1 had other listeners: {what}"):
        brought_back(1, was, now)
