"""A sample of `python -m tests.crash_points`: one point of each model, and a save that is torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from sockmgr.config.spec import Accept
from tests.crash_points.places import Alone
from tests.crash_points.play import killed


@pytest.mark.parametrize(
    ("accept", "point"),
    [
        (Accept.SHARED, "state-half-written:6"),
        (Accept.PER_WORKER, "feed"),
        (Accept.DISPATCH, "tell-attach:3"),
    ],
)
def test_a_manager_that_is_killed_at_a_point_of_a_reload_loses_nothing(
    accept: Accept, point: str, tmp_path: Path
) -> None:
    with Alone(accept, tmp_path) as place:
        outcome = killed(place, point)
    assert not outcome.flaw, f"{outcome.flaw}\n{outcome.log}"
    assert outcome.requests > 50
