"""Whether one generation answers worse than another that serves beside it. Pure.

Three things are looked at: how many of the requests failed, how many were slow, and how many wait
for an answer now. Slow is what took longer than WORSE times the time in which the other generation
answers 95 of 100. Any of these counts only if it is both

- large enough to matter: WORSE times the share of the other generation, and MORE above it; for
  times LATER as well, as nobody feels a thousandth of a second; what waits, in all looks of STUCK;
- no chance: if both were alike, a request that failed would belong to the new one as often as any
  request does. More of them do so, at some time, in one of ODDS canaries at most.

The latter holds however often one looks. It compares how likely what was seen is, if the new one
fails as often as the other, with how likely it is if any other rate of it is as likely as the next;
such a ratio ever exceeds ODDS with a probability of at most 1 / ODDS (Robbins, 1970).
"""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import replace

from sockmgr.api.figures import Comparison, Figures, Finding

FEW = 20  # requests of the new generation, before which its failures do not count
ENOUGH = 100  # requests of each, before which times do not: the first ones of new workers are slow
WORSE = 1.5
MORE = 0.01
LATER = 0.005  # seconds
STUCK = 10.0  # seconds
ODDS = 1000
_HIGH = 0.95

FAILS = "more of its requests fail"
SLOW = "its requests take longer"
WAITS = "more of its requests wait for an answer"


class Course(msgspec.Struct, kw_only=True):
    """How `generation` does in a step of its canary, and how the one beside it does.

    When the step began, the two had counted `new` and `old`. `stuck_at` is the instant since which
    more of the new one's requests wait.
    """

    generation: int = 0
    beside: int = 0
    step: int = 0
    new: Figures
    old: Figures
    stuck_at: float | None = None

    def look(self, new: Figures, old: Figures, now: float) -> Comparison:
        """Compare them by what they have counted by `now`."""
        since, beside = new.since(self.new), old.since(self.old)
        found = compare(since, beside)
        share = since.begun / (since.begun + beside.begun or 1)
        if not _is_no_chance(new.waiting, old.waiting, share):
            self.stuck_at = None
        elif self.stuck_at is None:
            self.stuck_at = now
        elif now - self.stuck_at >= STUCK and found.finding is not Finding.WORSE:
            why = f"{WAITS}, {new.waiting} (old {old.waiting})"
            return replace(found, finding=Finding.WORSE, why=why)
        return found


def compare(new: Figures, old: Figures) -> Comparison:
    """Compare what two generations have counted in the same time."""
    finding, why = _find(new, old)
    return Comparison(
        finding=finding,
        why=why,
        requests=new.answered,
        old_requests=old.answered,
        errors=new.failures,
        old_errors=old.failures,
        p95=new.percentile(_HIGH),
        old_p95=old.percentile(_HIGH),
        wanted=ENOUGH,
    )


def _find(new: Figures, old: Figures) -> tuple[Finding, str]:
    share = new.answered / (new.answered + old.answered or 1)
    is_more = new.failures >= max(WORSE * old.failures, old.failures + MORE)
    if is_more and new.answered >= FEW and _is_no_chance(new.failed, old.failed, share):
        return Finding.WORSE, FAILS
    if min(new.answered, old.answered) < ENOUGH:
        return Finding.TOO_FEW, ""
    beside = old.percentile(_HIGH)
    slow = max(WORSE * beside, beside + LATER)
    if new.percentile(_HIGH) > slow and _is_no_chance(new.slower(slow), old.slower(slow), share):
        return Finding.WORSE, SLOW
    return Finding.ALIKE, ""


def _is_no_chance(new: int, old: int, share: float) -> bool:
    """Return whether it is no chance that of `new` + `old` bad requests `new` are the new one's.

    Of all requests it has this `share`.
    """
    if not (0 < share < 1 and new > share * (new + old)):
        return False
    # The integral over all p of p^new (1 - p)^old, which is a beta function, by that of `share`.
    mixture = math.lgamma(new + 1) + math.lgamma(old + 1) - math.lgamma(new + old + 2)
    alike = new * math.log(share) + old * math.log(1 - share)
    return mixture - alike > math.log(ODDS)
