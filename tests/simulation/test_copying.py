"""A copy of a world has nothing in common with it that can change."""

from __future__ import annotations

import gc
import random
import types
from collections import Counter
from typing import Any

import msgspec
import pytest

from sockmgr.config.app_keys import Http
from sockmgr.config.spec import Accept
from tests.simulation import configs, copying, keeping, moving, schedule, steps
from tests.simulation.world import World

# Without a dispatcher, which is only pretended in a process of its own (test_simulation.py).
FAMILIES = [
    number
    for number in range(configs.FAMILIES)
    if all(s.accept is not Accept.DISPATCH for c in configs.family(number) for s in c.services)
]


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    moving.install(monkeypatch.setattr)
    keeping.install(monkeypatch.setattr)


def played(family: int) -> World:
    """Return a world in which something has happened."""
    dice, world = random.Random(family), schedule.begun(family)
    for _ in range(60):
        if not world.is_over:
            steps.take(world, steps.drawn(dice))
    return world


def parts(world: World) -> dict[int, Any]:
    """Return all that can be reached and may change, by id()."""
    found: dict[int, Any] = {}
    left: list[Any] = [world]
    while left:
        each = left.pop()
        is_value = copying.is_shared(type(each)) and not isinstance(each, msgspec.Struct)
        if is_value or isinstance(each, types.ModuleType):
            continue
        if id(each) not in found:
            found[id(each)] = each
            is_code = isinstance(each, types.FunctionType)
            left += each.__closure__ or () if is_code else gc.get_referents(each)
    return found


def kinds(found: dict[int, Any]) -> Counter[type]:
    """Count what there is, but for the dictionaries that objects have only when asked for them."""
    return Counter(type(each) for each in found.values() if type(each) is not dict)


@pytest.mark.parametrize("family", FAMILIES[:12])
def test_a_copy_shares_nothing_that_changes(family: int) -> None:
    world = played(family)
    made = copying.copied(world)
    mine, its = parts(world), parts(made)
    shared = [mine[each] for each in mine.keys() & its.keys()]
    # Of these only what is in them could change, and that was looked at as well.
    lasts = tuple | frozenset | types.FunctionType | msgspec.Struct | Http
    assert not [each for each in shared if not isinstance(each, lasts)]
    assert kinds(mine) == kinds(its)


@pytest.mark.parametrize("family", FAMILIES[:12])
def test_a_copy_goes_on_as_the_world_does(family: int) -> None:
    world = played(family)
    made = copying.copied(world)
    dice = [random.Random(0), random.Random(0)]
    world.story, made.story = [], []
    for each, mine in zip((world, made), dice, strict=True):
        schedule._draw(each, mine, [], 12)
    assert world.story == made.story


def test_what_nobody_has_said_how_to_copy_is_refused() -> None:
    world = played(FAMILIES[0])
    world.hooks = iter(())  # type: ignore[assignment]
    with pytest.raises(TypeError, match="nobody has said how"):
        copying.copied(world)
    kept: list[int] = []
    world.hooks = lambda: kept  # type: ignore[assignment]
    with pytest.raises(TypeError, match="knows something of the world"):
        copying.copied(world)
