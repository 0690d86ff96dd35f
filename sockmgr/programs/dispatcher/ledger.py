"""The connections one worker got, and what it reports of them. Pure: no I/O, no clock.

All numbers of a worker count from the beginning of its channel and only grow. So a lost report does
no harm, since the next one has it all, and a manager that adopts a channel needs one answer only.
"""

from __future__ import annotations

from typing import NamedTuple


class Forged(Exception):
    """A worker reported something impossible; the text completes "the worker: ..."."""


class Report(NamedTuple):
    """What a worker says of itself, in the order of the message; it may be a lie.

    A tuple: one is made for nearly each connection, and a frozen dataclass takes thrice the time.
    """

    answered: int  # the last question that it has read
    taken: int  # connections that came out of the channel, `lost` ones included
    closed: int
    lost: int  # dropped by the kernel, because the worker could open no more files


_NOTHING = Report(answered=0, taken=0, closed=0, lost=0)


class Ledger:
    """The account of one worker. Not `known` before its first answer: the channel may be old."""

    def __init__(self, question: int, *, is_new: bool = False) -> None:
        """Begin to count questions there: no manager before us may have asked them.

        Nobody has passed anything to a worker whose channel `is_new` but we.
        """
        self.known = False
        self.asked = 0  # the question that waits for its answer, 0 if none does
        self.passed = 0  # and not taken back; of a channel that is not known, since we have it
        self.lost = 0
        self._question, self._is_new = question, is_new
        self._heard = _NOTHING

    def question(self) -> int:
        """Return the number that the next question is to have."""
        return self._question + 1

    def ask(self) -> None:
        """Know that it was asked; until it answers, nothing more is passed."""
        self._question += 1
        self.asked = self._question

    def hear(self, report: Report) -> int:
        """Return how many connections more (first answer) or less it has now; raises Forged.

        A channel is known from its first answer on: it stands behind all that was passed before.
        """
        before, self._heard = self._heard, report
        if (
            report.taken < before.taken
            or report.closed < before.closed
            or report.lost < before.lost
        ):
            raise Forged("its numbers shrink")
        if report.closed + report.lost > report.taken:
            raise Forged(f"it closed {report.closed + report.lost} of {report.taken} connections")
        answers = report.answered == self.asked != 0
        if answers:
            self.asked = 0
        if not self.known:
            return self._begin(report) if answers else 0
        if report.taken > self.passed:
            raise Forged(f"it took {report.taken} connections and was passed {self.passed}")
        self.lost += report.lost - before.lost
        return before.closed + before.lost - report.closed - report.lost

    def _begin(self, report: Report) -> int:
        if self._is_new and report.taken:
            raise Forged(f"it took {report.taken} connections and was passed 0")
        self.known = True
        self.passed = report.taken
        return report.taken - report.closed - report.lost
