"""A reload while clients that never pause use all processors: how much longer answers take."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from sockmgr.torture.load.result import Row
from tests.bench.contender import CONTENDERS, WORKERS, Contender
from tests.bench.report import Goal, Section, narrate, number, table
from tests.e2e.apps import App
from tests.helpers.load import Load, Result

CLIENTS = 16
MODES = (f"kat:conns={CLIENTS},think=0",)
ROUNDS = 3
COMPARED = ("sockmgr, uvicorn", "uvicorn --workers")
STEADY_SECONDS = 4.0
QUIET_SECONDS = 2.0  # without an answer of the old version: the reload is over
TIMEOUT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One reload of one contender. Seconds."""

    requests: int
    failed: Counter[str]
    steady: float
    reloading: float
    longest: float
    took: float

    @property
    def ratio(self) -> float:
        """How many times its steady 99th percentile the one in the reload is."""
        return self.reloading / self.steady


def measure(contender: Contender) -> Round:
    """Start the contender, saturate the processors, reload it, stop it."""
    with tempfile.TemporaryDirectory(prefix="sockmgr-bench-") as name:
        directory = Path(name)
        app = App(contender.example, directory)
        with contender.start(app, directory) as running, Load(running.target, MODES) as load:
            time.sleep(1)  # the first requests find cold workers
            began_at = time.monotonic()
            time.sleep(STEADY_SECONDS)
            app.deploy("2")
            asked_at = time.monotonic()
            running.reload()
            is_over = _wait_until_over(load.result)
            return _round(load.stop(), began_at, asked_at, is_over=is_over)


def _wait_until_over(result: Result) -> bool:
    """Return True when the new version answers and no old one has for QUIET_SECONDS.

    False after TIMEOUT: some tools give up a reload. Looks seldom, since the load runs in a thread
    of this process.
    """
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS / 4)
        since = time.monotonic() - QUIET_SECONDS
        latest = itertools.takewhile(partial(_was_due_after, since), reversed(result.rows))
        if {row.version for row in latest if row.version} == {"2"}:
            return True
    return False


def _was_due_after(since: float, row: Row) -> bool:
    return row.scheduled > since


def _last(result: Result, version: str) -> float:
    """Return the instant of the last answer of `version`, which is among the last ones."""
    ends = (row.ended for row in reversed(result.rows) if row.version == version)
    return next(ends, -math.inf)


def _round(result: Result, began_at: float, asked_at: float, *, is_over: bool) -> Round:
    over_at = _last(result, "1")
    steady = result.latencies(result.select(since=began_at, until=asked_at))
    reloading = result.latencies(result.select(since=asked_at, until=over_at))
    return Round(
        requests=len(result.rows),
        failed=Counter(str(row.outcome) for row in result.failed),
        steady=steady["p99"],
        reloading=reloading["p99"],
        longest=reloading["max"],
        took=over_at - asked_at if is_over else math.nan,
    )


def section() -> Section:
    """Measure in turn, and return the part of the document on it."""
    compared = [one for one in CONTENDERS if one.name.startswith(COMPARED)]
    rounds: dict[str, list[Round]] = {one.described: [] for one in compared}
    for number_ in range(ROUNDS):
        for one in compared:
            narrate(f"saturated, round {number_ + 1}: {one.described} …")
            rounds[one.described].append(measure(one))
    text = (
        f"{WORKERS} workers of an application that takes 0.5 s to import, {CLIENTS} clients that "
        "keep their connections and never pause, so that no processor is ever idle; one reload, "
        f"the medians of {ROUNDS} rounds in turn. *Whole*: until the old version answers nobody "
        "any more."
    )
    head = ("tool", "requests", "failed", "p99 before (ms)", "p99 in the reload (ms)", "ratio",
            "longest (ms)", "whole (s)")  # fmt: skip
    table_ = table(head, [_row(name, found) for name, found in rounds.items()])
    return Section(
        title="A reload on saturated processors", text=f"{text}\n\n{table_}", goals=_goals(rounds)
    )


def _row(name: str, rounds: Sequence[Round]) -> Sequence[str]:
    failed = sum((one.failed for one in rounds), Counter[str]())
    named = ", ".join(f"{count} {outcome}" for outcome, count in failed.most_common())
    return (
        name,
        str(sum(one.requests for one in rounds)),
        f"{failed.total()}: {named}" if failed else "0",
        number(median(one.steady for one in rounds) * 1000),
        number(median(one.reloading for one in rounds) * 1000),
        number(median(one.ratio for one in rounds)),
        number(median(one.longest for one in rounds) * 1000),
        number(median(one.took for one in rounds)),
    )


def _goals(rounds: dict[str, list[Round]]) -> Sequence[Goal]:
    ratios = {name: median(one.ratio for one in found) for name, found in rounds.items()}
    theirs = max((ratio for name, ratio in ratios.items() if not name.startswith("sockmgr")),
                 default=math.nan)  # fmt: skip
    return [
        Goal(
            what=f"saturated: p99 in the reload / p99 before, {name}", value=ratio, limit=theirs,
            compared=f"uvicorn --workers {number(theirs)}",
        )
        for name, ratio in ratios.items()
        if name.startswith("sockmgr")
    ]  # fmt: skip
