"""What workers have counted of their requests, as a value, and what a comparison finds. Pure.

The workers of `app` count it (worker/figures.py, which says what a failure is, and a time).
"""

from __future__ import annotations

from enum import StrEnum
from itertools import accumulate
from operator import add, sub
from typing import Self

import msgspec

from sockmgr.worker.figures import BUCKETS, least_of


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one worker, or of several: requests that were `begun`, and those of them that `failed`.

    `times` is a histogram of how long the requests took that have an answer, by the buckets of
    worker/figures.py.
    """

    begun: int = 0
    failed: int = 0
    times: tuple[int, ...] = (0,) * BUCKETS

    @property
    def answered(self) -> int:
        return sum(self.times)

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return max(self.begun - self.answered, 0)

    @property
    def failures(self) -> float:
        """The share of the answered requests that failed; 0 without any."""
        return min(self.failed / (self.answered or 1), 1.0)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            begun=self.begun + other.begun,
            failed=self.failed + other.failed,
            times=tuple(map(add, self.times, other.times)),
        )

    def since(self, before: Self) -> Self:
        """Return what has come since `before`; nothing is below 0, if a worker counts backwards."""
        return type(self)(
            begun=max(self.begun - before.begun, 0),
            failed=max(self.failed - before.failed, 0),
            times=tuple(max(each, 0) for each in map(sub, self.times, before.times)),
        )

    def percentile(self, share: float) -> float:
        """Return the time within which this share of the requests was answered, in seconds.

        It is true within 6 %; 0 without any request.
        """
        sums = enumerate(accumulate(self.times))
        bucket = next(bucket for bucket, n in sums if n >= share * self.answered)
        return _middle_of(bucket) if self.answered else 0.0

    def slower(self, seconds: float) -> int:
        """Return how many requests took longer, by the middle of their bucket."""
        return sum(n for bucket, n in enumerate(self.times) if n and _middle_of(bucket) > seconds)


class Within(msgspec.Struct, frozen=True, kw_only=True):
    """How many `requests` were answered within so many `seconds`."""

    seconds: float
    requests: int


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers of a service have answered, those that have ended included.

    `answered` is how many requests, of which so many `failed`; `seconds` is how long they took
    together. `within` is a histogram of that, each entry counting those of the ones before too.
    """

    answered: int
    failed: int
    seconds: float
    within: tuple[Within, ...]

    @classmethod
    def of(cls, figures: Figures) -> Self:
        """Return what figures tell, with a bucket for each power of two from half a millisecond."""
        upto = tuple(accumulate(figures.times))
        return cls(
            answered=figures.answered,
            failed=figures.failed,
            seconds=sum(n * _middle_of(bucket) for bucket, n in enumerate(figures.times) if n),
            within=tuple(
                Within(seconds=least_of(bucket) / 1e9, requests=upto[bucket - 1])
                for bucket in range(32, BUCKETS, 8)
            ),
        )


class Finding(StrEnum):
    """Whether a generation answers worse than the one beside it; TOO_FEW requests do not tell."""

    ALIKE = "alike"
    WORSE = "worse"
    TOO_FEW = "too_few"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests to a new generation were answered, and in the same time those to the old.

    Of `requests` that have an answer, `errors` is the share that failed, and `p95` the time in
    seconds within which 95 of 100 had it. `why` says in words what is worse. `wanted` is how many
    requests to each are enough to tell, 0 from an earlier version.
    """

    finding: Finding
    requests: int
    old_requests: int
    errors: float
    old_errors: float
    p95: float
    old_p95: float
    why: str = ""
    wanted: int = 0

    def __str__(self) -> str:
        """Return the numbers as a person reads them."""
        text = (
            f"errors {self.errors:.1%} (old {self.old_errors:.1%}), p95 {self.p95 * 1e3:.0f} ms "
            f"(old {self.old_p95 * 1e3:.0f} ms), of {self.requests} requests "
            f"(old {self.old_requests})"
        ).replace("%", " %")
        return f"{text}: too few to tell" if self.finding is Finding.TOO_FEW else text


def _middle_of(bucket: int) -> float:
    return (least_of(bucket) + least_of(bucket + 1)) / 2e9
