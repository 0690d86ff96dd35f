"""Whoever accepts: what is killed takes with it what it had in its hands, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from sockmgr.config.spec import Accept
from tests import deaths
from tests.deaths import LIGHT, Alone
from tests.e2e.apps import App
from tests.e2e.harness import Manager
from tests.e2e.programs.release import answered


@pytest.mark.parametrize("accept", Accept)
def test_a_worker_and_a_template_that_are_killed_take_with_them_what_they_had_in_hand(
    accept: Accept, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, deaths.config(app, "app", accept)) as manager:
        place = Alone(manager)
        with place.load(*LIGHT) as load:
            answered(load, count=20)
            worker = deaths.worker(place, load)
            deaths.in_a_reload(place, lambda: place.kill_next_template(load))
            answered(load, count=20)
            result = load.stop()
        assert all(worker.took(row) for row in result.failed), result.failures()
