"""What the outcomes of requests amount to: which were lost, how, and which had to be. Pure.

A request is *excused* if what was done to the server on purpose had to cost it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sockmgr.torture.load.result import Outcome, Row


class Loss(StrEnum):
    """The classes of failures, in words for a person."""

    REFUSED = "refused"
    RESET = "reset before a byte"
    CUT = "cut short"
    RACED = "closed in the instant of use"
    TIMEOUT = "timeout"
    ERROR = "5xx"
    WRONG = "wrong content"
    STALE = "old version after the verdict"
    OWN = "no descriptor or port left here"


LOSSES = {
    Outcome.REFUSED: Loss.REFUSED,
    Outcome.NOENT: Loss.REFUSED,
    Outcome.CONNECT_ERR: Loss.REFUSED,
    Outcome.BACKLOG_FULL: Loss.REFUSED,
    Outcome.CONNECT_TIMEOUT: Loss.TIMEOUT,
    Outcome.TIMEOUT: Loss.TIMEOUT,
    Outcome.UNFINISHED: Loss.TIMEOUT,
    Outcome.RESET0: Loss.RESET,
    Outcome.EMPTY: Loss.RESET,
    Outcome.RESET_MID: Loss.CUT,
    Outcome.TRUNC_MID: Loss.CUT,
    Outcome.KA_LOST_RST: Loss.RACED,
    Outcome.KA_LOST_FIN: Loss.RACED,
    Outcome.HTTP_5XX: Loss.ERROR,
    Outcome.HTTP_4XX: Loss.WRONG,
    Outcome.BAD_BODY: Loss.WRONG,
    Outcome.LOCAL_LIMIT: Loss.OWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Excuse:
    """Which failures had to be: of requests begun in a span of time, on these client's ports.

    `ports` are those of the connections that a process held when it was killed or stopped; None
    are all.
    """

    why: str
    ports: frozenset[int] | None = None
    since: float = -math.inf
    until: float = math.inf

    def covers(self, row: Row) -> bool:
        """Return whether this excuses that the request failed."""
        return (self.ports is None or row.port in self.ports) and (
            self.since <= row.began <= self.until
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of a reload that has succeeded: no older version may answer after that."""

    version: int
    told_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One request that failed; `excuse` says why it had to, "" that it need not have."""

    at: float
    loss: Loss
    mode: str
    excuse: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All requests of one trial, counted."""

    requests: int
    failures: Sequence[Failure] = ()
    lost: Counter[Loss] = field(default_factory=Counter)
    raced: int = 0
    excused: Counter[str] = field(default_factory=Counter)


def judge(
    rows: Sequence[Row], *, excuses: Sequence[Excuse], verdicts: Sequence[Verdict], strict: bool
) -> Judgement:
    """Class all failures. Unless `strict`, races of kept connections are counted apart.

    RFC 9112, 9.5: a server may close an idle connection while a request is on its way, and
    clients retry those that are idempotent.
    """
    failures = list(_failures(rows, excuses, verdicts))
    kept = [each for each in failures if not each.excuse]
    lost = Counter(each.loss for each in kept if strict or each.loss is not Loss.RACED)
    return Judgement(
        requests=len(rows),
        failures=failures,
        lost=lost,
        raced=0 if strict else sum(each.loss is Loss.RACED for each in kept),
        excused=Counter(each.excuse for each in failures if each.excuse),
    )


def _failures(
    rows: Iterable[Row], excuses: Sequence[Excuse], verdicts: Sequence[Verdict]
) -> Iterator[Failure]:
    for row in rows:
        if row.outcome is not Outcome.OK:
            why = next((each.why for each in excuses if each.covers(row)), "")
            loss = LOSSES[row.outcome]
            at = row.ended if math.isfinite(row.ended) else row.scheduled
            yield Failure(at=at, loss=loss, mode=row.mode, excuse=why)
        elif row.fresh and row.version.isdecimal():
            told = (one for one in verdicts if one.told_at < row.began)
            if any(int(row.version) < one.version for one in told):
                yield Failure(at=row.began, loss=Loss.STALE, mode=row.mode)
