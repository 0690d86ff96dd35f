"""Whether a generation answers worse than another: by hand, and in canaries that are played."""

from __future__ import annotations

import pytest

from sockmgr.api.figures import Figures, Finding
from sockmgr.fleet.comparison import ENOUGH, FAILS, FEW, SLOW, STUCK, WAITS, Course, compare
from sockmgr.worker.figures import BUCKETS, least_of
from tests.fleet.canaries import TYPICAL, WORSE, alarms, played


def figures(requests: int, failed: int = 0, seconds: float = TYPICAL, begun: int = 0) -> Figures:
    """So many requests, which all took this long; of those begun beyond, none has an answer."""
    times = [0] * BUCKETS
    times[bucket_of(seconds)] = requests
    return Figures(begun=max(begun, requests), failed=failed, times=tuple(times))


def bucket_of(seconds: float) -> int:
    return next(n for n in reversed(range(BUCKETS)) if least_of(n) <= seconds * 1e9)


# --- By hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old", "found"),
    [
        (figures(0), figures(1000), (Finding.TOO_FEW, "")),
        (figures(1000), figures(0), (Finding.TOO_FEW, "")),
        (figures(ENOUGH - 1, seconds=1.0), figures(1000), (Finding.TOO_FEW, "")),
        (figures(ENOUGH), figures(1000), (Finding.ALIKE, "")),
        (figures(FEW - 1, FEW - 1), figures(1000), (Finding.TOO_FEW, "")),
        (figures(FEW, FEW), figures(1000), (Finding.WORSE, FAILS)),
        (figures(500, 15), figures(4500), (Finding.WORSE, FAILS)),
        (figures(500, 15), figures(500), (Finding.WORSE, FAILS)),
        (figures(500, 15), figures(4500, 4500), (Finding.ALIKE, "")),  # it is better
        # Of so many each difference is no chance, but this one is too small to matter.
        (figures(10**6, 9_000), figures(10**6), (Finding.ALIKE, "")),
        (figures(10**6, 220_000), figures(10**6, 200_000), (Finding.ALIKE, "")),
        (figures(ENOUGH, seconds=TYPICAL * 2), figures(1000), (Finding.WORSE, SLOW)),
        (figures(10**6, seconds=TYPICAL * 1.3), figures(10**6), (Finding.ALIKE, "")),
        (figures(10**6, seconds=0.004), figures(10**6, seconds=0.0004), (Finding.ALIKE, "")),
        (figures(1000), figures(1000, seconds=1.0), (Finding.ALIKE, "")),
    ],
)
def test_worse_is_what_is_large_enough_to_matter_and_no_chance(
    new: Figures, old: Figures, found: tuple[Finding, str]
) -> None:
    comparison = compare(new, old)
    assert (comparison.finding, comparison.why) == found


def test_both_numbers_of_each_are_told() -> None:
    assert str(compare(figures(500, 15, seconds=0.04), figures(4500, seconds=0.02))) == (
        "errors 3.0 % (old 0.0 %), p95 40 ms (old 20 ms), of 500 requests (old 4500)"
    )


def test_nothing_that_a_worker_writes_breaks_the_comparison() -> None:
    most = Figures(begun=2**61, failed=2**61, times=(2**61,) * BUCKETS)
    nonsense = [Figures(), most, Figures(failed=2**61), figures(100, failed=2**61), figures(100)]
    for new in nonsense:
        for old in nonsense:
            for before in nonsense:
                course = Course(new=before, old=before)
                assert 0 <= course.look(new, old, 1.0).errors <= 1
                assert Figures().since(before) == Figures()


def test_requests_that_nobody_answers_are_worse_when_that_lasts() -> None:
    course, found = Course(new=figures(0), old=figures(9000, begun=9002)), []
    for t in range(int(STUCK) + 3):
        old = figures(9000 + 90 * t, begun=9002 + 90 * t)
        found.append(course.look(figures(0, begun=10 * t), old, float(t)))
    worse = [n for n, each in enumerate(found) if each.finding is Finding.WORSE]
    assert (worse[0], found[-1].why) == (int(STUCK) + 1, f"{WAITS}, 120 (old 2)")


def test_an_application_whose_requests_wait_long_is_none_that_hangs() -> None:
    course = Course(new=figures(0), old=figures(9000, begun=10_800))
    for t in range(100):  # each waits for 20 seconds, with either
        new = figures(max(10 * t - 200, 0), begun=10 * t)
        old = figures(9000 + 90 * t, begun=10_800 + 90 * t)
        assert course.look(new, old, float(t)).finding is not Finding.WORSE


def test_a_moment_in_which_nobody_is_answered_is_no_hang() -> None:
    course = Course(new=figures(0), old=figures(0))
    for t in range(100):
        waiting = 0 if t % 8 == 7 else 40
        new = figures(t, begun=t + waiting)
        assert course.look(new, figures(900 + 900 * t), float(t)).finding is not Finding.WORSE


# --- Canaries that are played ------------------------------------------------------------------


def test_a_good_canary_is_not_taken_back() -> None:
    assert alarms(range(2)) == (0, 2 * 4 * 4)  # `python -m tests.fleet.canaries` plays many more


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("bad", WORSE)
def test_a_bad_canary_is_taken_back_within_a_thousand_requests(share: float, bad: str) -> None:
    for seed in range(3):
        (requests,) = played(seed, *WORSE[bad], share, pace=int(17 / share))
        assert requests <= 1000
