"""Whole runs against small servers: each class of failure that is planted is found."""

from __future__ import annotations

import json

from sockmgr.torture import report
from sockmgr.torture.judgement import Loss
from sockmgr.torture.run import torture
from tests.torture.servers import left_of, prefork, scenarios

PLANTED = {
    "reset": Loss.RESET,
    "cut": Loss.CUT,
    "race": Loss.RACED,
    "hang": Loss.TIMEOUT,
    "503": Loss.ERROR,
    "wrong": Loss.WRONG,
    "old": Loss.STALE,
}


def test_every_class_of_failure_that_a_server_is_made_to_have_is_found() -> None:
    plan = prefork(*PLANTED)
    (trial,) = torture(plan, scenarios("reload")).trials
    assert set(trial.judgement.lost) == set(PLANTED.values()) - {Loss.RACED}
    assert trial.judgement.raced
    assert trial.seen.verdicts
    assert not trial.passed
    assert not left_of(plan)


def test_a_server_that_ends_refuses_and_is_said_to_have_ended() -> None:
    plan = prefork("end")
    run = torture(plan, scenarios("reload"))
    (trial,) = run.trials
    assert trial.judgement.lost[Loss.REFUSED]
    assert any("the server ended with 3" in problem for problem in trial.seen.problems)
    assert not run.passed
    assert "REFUSED" in report.verdict(trial).upper()


def test_a_server_that_loses_nothing_passes_and_workers_are_seen_and_struck() -> None:
    plan = prefork()
    told: list[str] = []
    names = ("reload", "worker-killed", "uploads")
    run = torture(plan, scenarios(*names), told=told.append)
    assert run.passed, list(report.details(run))
    assert len(told) == 1 + len(names)
    reload, killed, _ = run.trials
    assert {row.version for row in reload.rows} == {"1", "2"}
    # Both workers held connections; the one that was killed has a successor.
    assert len({pid for sample in killed.seen.samples for pid in sample.connections}) >= 2
    assert [moment.what for moment in killed.seen.moments] == ["worker killed"]
    figures = json.loads(json.dumps(report.as_dict(run)))
    assert [trial["name"] for trial in figures["trials"]] == ["reload", "worker-killed", "uploads"]
    assert figures["passed"]
    assert not left_of(plan)
