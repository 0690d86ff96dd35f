"""Services that go together: who is after whom, and who cannot change over with others."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sockmgr.config import company
from sockmgr.config.config import parse
from sockmgr.config.spec import Rollout, Surge
from sockmgr.errors import ConfigError


def services(*lines: str) -> bytes:
    """Return a config of services; each line has a name, and what the service is after."""
    tables = []
    for line in lines:
        name, *after = line.split()
        tables.append(f'[service.{name}]\ncommand = ["x"]\nafter = {list(after)}\n')
    return "".join(tables).encode()


def test_a_service_is_after_those_that_it_names_each_once() -> None:
    found = parse(services("a", "b a a", "c b a"), file="x")
    assert [each.after for each in found.services] == [(), ("a",), ("b", "a")]


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        (["a a"], "a -> a"),
        (["a b", "b a"], "a -> b -> a"),
        (["x a", "a b", "b c", "c a"], "a -> b -> c -> a"),
        (["a b c", "b d", "c a", "d b"], "a -> c -> a"),
    ],
)
def test_a_circle_is_told_with_its_path(lines: list[str], path: str) -> None:
    with pytest.raises(ConfigError, match=f"after goes in a circle: {path}\n") as error:
        parse(services(*lines), file="x")
    assert "remove one of these" in error.value.do


def test_a_diamond_is_no_circle() -> None:
    assert parse(services("top left right", "left base", "right base", "base"), file="x")


@pytest.mark.parametrize(
    ("rollout", "workers", "why"),
    [
        (Rollout(exclusive=True), 1, "is exclusive"),
        (Rollout(surge=Surge(amount=1)), 2, "has surge = 1"),
        (Rollout(surge=Surge(amount=50, percent=True)), 2, "has surge = 50%"),
    ],
)
def test_who_has_no_instant_of_cut_over_cannot_go_with_others(
    rollout: Rollout, workers: int, why: str
) -> None:
    assert company.apart(rollout, workers).startswith(why)


@pytest.mark.parametrize(("surge", "workers"), [(Surge(amount=2), 2), (Rollout().surge, 9)])
def test_who_has_room_for_all_beside_all_can(surge: Surge, workers: int) -> None:
    assert company.apart(Rollout(surge=surge), workers) == ""


def test_a_stop_takes_as_long_as_the_longest_chain() -> None:
    found = parse(services("a", "b a", "c b a", "d"), file="x").services
    times = {"a": 5.0, "b": 7.0, "c": 1.0, "d": 12.0}
    each = [replace(service, drain_timeout=times[service.name]) for service in found]
    assert company.longest_stop(each) == 13.0
