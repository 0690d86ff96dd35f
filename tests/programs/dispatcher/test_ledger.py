"""What a worker reports is counted if it can be true, and refused if it cannot."""

from __future__ import annotations

import pytest

from sockmgr.programs.dispatcher.ledger import Forged, Ledger, Report


def report(taken: int, closed: int = 0, lost: int = 0, *, answered: int = 0) -> Report:
    return Report(answered=answered, taken=taken, closed=closed, lost=lost)


def known(passed: int = 0) -> Ledger:
    """Return the ledger of a new worker that has answered, and was passed so many."""
    ledger = Ledger(100)
    ledger.ask()
    assert ledger.hear(report(0, answered=101)) == 0
    ledger.passed += passed
    return ledger


def test_what_is_closed_or_lost_makes_room() -> None:
    ledger = known(10)
    assert ledger.hear(report(4)) == 0
    assert ledger.hear(report(8, closed=3)) == -3
    assert ledger.hear(report(10, closed=5, lost=2)) == -4
    assert ledger.lost == 2


def test_a_report_that_was_lost_is_made_up_for_by_the_next() -> None:
    ledger = known(10)
    assert ledger.hear(report(10, closed=9)) == -9


def test_a_question_is_answered_by_its_own_number_only() -> None:
    ledger = known()
    ledger.ask()
    ledger.hear(report(0, answered=101))
    assert ledger.asked
    ledger.hear(report(0, answered=102))
    assert not ledger.asked


def test_an_old_channel_is_known_by_one_answer() -> None:
    ledger = Ledger(100)
    ledger.ask()
    # A report of before, which a manager that is dead has not read.
    assert ledger.hear(report(7, closed=5, answered=3)) == 0
    assert not ledger.known
    assert ledger.hear(report(9, closed=5, lost=1, answered=101)) == 3
    assert (ledger.known, ledger.passed, ledger.lost) == (True, 9, 0)


def test_what_was_lost_before_our_time_is_not_told_again() -> None:
    ledger = Ledger(100)
    ledger.ask()
    ledger.hear(report(9, lost=4, answered=101))
    ledger.hear(report(9, lost=4))
    assert ledger.lost == 0


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (report(11, closed=1), "took 11 connections and was passed 10"),
        (report(2**64 - 1, closed=2**63), "was passed 10"),
        (report(5, closed=6), "closed 6 of 5"),
        (report(5, closed=3, lost=3), "closed 6 of 5"),
        (report(3, closed=1), "shrink"),
        (report(4, closed=0), "shrink"),
    ],
)
def test_what_cannot_be_is_refused(forged: Report, why: str) -> None:
    ledger = known(10)
    ledger.hear(report(4, closed=1))
    with pytest.raises(Forged, match=why):
        ledger.hear(forged)


def test_who_has_been_passed_nothing_cannot_have_taken_any() -> None:
    ledger = Ledger(100, is_new=True)
    ledger.ask()
    with pytest.raises(Forged, match="took 18446744073709551615 connections and was passed 0"):
        ledger.hear(report(2**64 - 1, answered=101))
    assert not ledger.known
