"""Failures are classed, and excused only if what was done on purpose had to cost them."""

from __future__ import annotations

from collections import Counter

import pytest

from sockmgr.torture.judgement import LOSSES, Excuse, Loss, Verdict, judge
from sockmgr.torture.load.result import Outcome, Row
from tests.helpers.load import KEPT_ALIVE_RACES


def row(
    outcome: Outcome = Outcome.OK,
    *,
    at: float = 1.0,
    port: int = 7,
    version: str = "",
    fresh: bool = True,
) -> Row:
    return Row(
        mode="short", scheduled=at, began=at, ended=at + 0.1, outcome=outcome, port=port,
        version=version, fresh=fresh,
    )  # fmt: skip


def lost(
    *rows: Row, excuses: tuple[Excuse, ...] = (), verdicts: tuple[Verdict, ...] = ()
) -> Counter[Loss]:
    return judge(rows, excuses=excuses, verdicts=verdicts, strict=False).lost


def test_every_outcome_but_ok_has_a_class() -> None:
    assert set(LOSSES) == set(Outcome) - {Outcome.OK}
    assert {loss for loss in Loss if loss not in LOSSES.values()} == {Loss.STALE}


@pytest.mark.parametrize("outcome", sorted(KEPT_ALIVE_RACES))
def test_a_race_of_a_kept_connection_is_told_apart_unless_one_is_strict(outcome: Outcome) -> None:
    races = [row(outcome), row(Outcome.REFUSED)]
    mild = judge(races, excuses=(), verdicts=(), strict=False)
    assert (mild.lost, mild.raced) == (Counter({Loss.REFUSED: 1}), 1)
    strict = judge(races, excuses=(), verdicts=(), strict=True)
    assert (strict.lost.total(), strict.raced) == (2, 0)


def test_only_what_a_killed_process_held_then_is_excused() -> None:
    excuse = Excuse(why="killed", ports=frozenset({7}), until=2.0)
    begun_before, elsewhere = row(Outcome.RESET_MID), row(Outcome.RESET_MID, port=8)
    begun_after = row(Outcome.RESET_MID, at=2.1)
    found = judge([begun_before, elsewhere, begun_after, row()], excuses=[excuse], verdicts=(),
                  strict=False)  # fmt: skip
    assert found.excused == {"killed": 1}
    assert found.lost == {Loss.CUT: 2}
    assert found.requests == 4


def test_what_began_after_a_stop_is_excused_whatever_its_port() -> None:
    excuse = Excuse(why="stopped", since=2.0)
    assert not lost(row(Outcome.REFUSED, at=2.5), excuses=(excuse,))
    assert lost(row(Outcome.REFUSED, at=1.5), excuses=(excuse,))


def test_an_older_version_after_the_verdict_is_lost_on_a_new_connection_only() -> None:
    verdict = Verdict(version=10, told_at=2.0)
    met = row(at=2.1, version="9")
    others = (row(at=1.9, version="9"), row(at=2.1, version="10"), row(at=3, version="11"))
    kept = row(at=2.1, version="9", fresh=False)
    assert lost(met, kept, *others, verdicts=(verdict,)) == {Loss.STALE: 1}
    assert not lost(kept, *others, row(at=2.1, version="blue"), verdicts=(verdict,))
