"""What a run has found, as lines for a person and as JSON for a program. Prints nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import sockmgr
from sockmgr.terminal.format import count
from sockmgr.torture.load.result import by_mode, latencies
from sockmgr.torture.run import Run, Trial


def verdict(trial: Trial) -> str:
    """Return one trial in a few words: `0 lost`, or how many and how."""
    if trial.skipped:
        return f"not played: {trial.skipped}"
    lost = ", ".join(f"{number} {loss}" for loss, number in trial.judgement.lost.most_common())
    words = [f"{trial.lost} lost: {lost}" if lost else "0 lost"]
    if trial.seen.problems:
        words.append(trial.seen.problems[0].splitlines()[0])
    return "; ".join(words)


def rows(run: Run) -> list[Sequence[str]]:
    return [
        (
            trial.name,
            "-" if trial.skipped else "ok" if trial.passed else "FAILED",
            str(trial.judgement.requests),
            milliseconds(trial, "p99"),
            milliseconds(trial, "max"),
            verdict(trial),
        )
        for trial in run.trials
    ]


HEADERS = ("scenario", "", "requests", "p99 ms", "max ms", "result")


def details(run: Run) -> Iterator[str]:
    for trial in run.trials:
        if lines := told(trial):
            yield f"{trial.name}: " + "\n  ".join(lines)


def told(trial: Trial) -> list[str]:
    judged, seen = trial.judgement, trial.seen
    lines = [*seen.problems, *seen.notes]
    lines += [f"excused: {number} {why}" for why, number in judged.excused.items()]
    if judged.raced:
        lines.append(f"{count(judged.raced, 'request')} raced the close of a kept connection")
    return lines


def total(run: Run) -> str:
    played = [trial for trial in run.trials if not trial.skipped]
    requests = sum(trial.judgement.requests for trial in played)
    lost = sum(trial.lost for trial in played)
    excused = sum(trial.judgement.excused.total() for trial in played)
    failed = sum(not trial.passed for trial in played)
    return (
        f"{requests} requests, {lost} lost, {excused} excused; "
        f"{failed} of {count(len(played), 'scenario')} failed"
    )


def milliseconds(trial: Trial, share: str) -> str:
    """Return a percentile of the latency of short and kept requests, from when each was due."""
    quick = (row for row in trial.rows if row.mode in {"short", "ka"})
    seconds = latencies(quick)[share]
    return "" if math.isnan(seconds) else f"{seconds * 1000:.0f}"


def as_dict(run: Run) -> dict[str, Any]:
    """Return all figures, for --json. Instants are seconds since the trial began."""
    return {
        "sockmgr": sockmgr.__version__,
        "title": run.title,
        "command": list(run.plan.command),
        "passed": run.passed,
        "trials": [_trial(trial) for trial in run.trials],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    if trial.skipped:
        return {"name": trial.name, "what": trial.what, "skipped": trial.skipped}
    seen, judged = trial.seen, trial.judgement
    began = trial.began_at
    return {
        "name": trial.name,
        "what": trial.what,
        "passed": trial.passed,
        "seconds": round(trial.ended_at - began, 3),
        "requests": judged.requests,
        "lost": dict(judged.lost),
        "raced": judged.raced,
        "excused": dict(judged.excused),
        "problems": seen.problems,
        "notes": seen.notes,
        "moments": [{"at": round(one.at - began, 3), "what": one.what} for one in seen.moments],
        "failures": [
            {
                "at": round(one.at - began, 3),
                "class": one.loss,
                "mode": one.mode,
                "excuse": one.excuse,
            }
            for one in judged.failures
        ],
        "modes": by_mode(trial.rows),
        "versions": dict(Counter(row.version for row in trial.rows if row.version)),
    }
