"""Plays canaries on a random source: how many good ones are taken back, and how soon bad ones are.

python -m tests.fleet.canaries 250
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from sockmgr.api.figures import Figures, Finding
from sockmgr.fleet.comparison import Course
from sockmgr.worker.figures import BUCKETS

TYPICAL = 0.02  # seconds


@dataclass(frozen=True)
class Application:
    """How long its requests take, in seconds, and what share of them fails."""

    time: Callable[[random.Random], float]
    fails: float = 0.0


def lognormal(spread: float, times: float = 1.0) -> Callable[[random.Random], float]:
    return lambda draw: times * TYPICAL * math.exp(draw.gauss(0, spread))


def two_kinds(draw: random.Random) -> float:
    """Return the time of one of many quick requests, or of one of a few slow ones."""
    return (0.2 if draw.random() < 0.05 else 0.004) * math.exp(draw.gauss(0, 0.2))


GOOD = {
    "steady": Application(lognormal(0.2)),
    "2 % fail": Application(lognormal(0.5), fails=0.02),
    "wide, 20 % fail": Application(lognormal(1.0), fails=0.2),
    "two kinds": Application(two_kinds, fails=0.001),
}
WORSE = {
    "3 % fail, 0 % before": (GOOD["steady"], Application(lognormal(0.2), fails=0.03)),
    "twice as slow": (GOOD["steady"], Application(lognormal(0.2, times=2))),
    "twice as slow, wide": (Application(lognormal(1.0)), Application(lognormal(1.0, times=2))),
}
TRAFFIC = ((0.1, 50), (0.5, 10), (0.9, 20), (0.01, 50))  # a share, and requests in a second


def played(seed: int, old: Application, new: Application, share: float, pace: int) -> list[int]:
    """Play a canary of a minute with `pace` requests a second, with a look in each.

    Return how many requests the new one had when it was found worse, if it was.
    """
    draw = random.Random(seed)
    times, failed = ([0] * BUCKETS, [0] * BUCKETS), [0, 0]
    course = Course(new=Figures(), old=Figures())
    for second in range(60):
        for _ in range(pace):
            to = draw.random() < share
            app = new if to else old
            times[to][_bucket_of(app.time(draw))] += 1
            failed[to] += draw.random() < app.fails
        ours, beside = (
            Figures(begun=sum(each), failed=n, times=tuple(each))
            for each, n in zip(reversed(times), reversed(failed), strict=True)
        )
        found = course.look(ours, beside, float(second))
        if found.finding is Finding.WORSE:
            return [found.requests]
    return []


def alarms(seeds: Iterable[int]) -> tuple[int, int]:
    """Return how many canaries were taken back, of how many that were as good as what they were."""
    found = [
        bool(played(seed, app, app, share, pace))
        for seed in seeds
        for app in GOOD.values()
        for share, pace in TRAFFIC
    ]
    return sum(found), len(found)


def _bucket_of(seconds: float) -> int:
    """Return what a worker does, fast enough for a million times."""
    time = int(seconds * 1e9)
    below = max(time.bit_length() - 4, 13)
    return min((below - 13 << 3) + (time >> below), BUCKETS - 1)


def main(seeds: int) -> None:
    for name, (old, new) in WORSE.items():
        for share in (0.1, 0.5):
            runs = [played(n, old, new, share, int(17 / share)) for n in range(seeds)]
            seen = [requests for run in runs for requests in run]
            print(f"{name}, at {share:.0%}: {len(seen)} of {seeds} taken back, after "
                  f"{median(seen):.0f} requests, {max(seen)} at most", flush=True)  # fmt: skip
    back, canaries = alarms(range(seeds))
    print(f"as good as before: {back} of {canaries} taken back")


if __name__ == "__main__":
    main(int(sys.argv[1]))
