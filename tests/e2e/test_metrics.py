"""`sockmgr metrics` beside a real manager: what happens is counted, from manager to manager."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.exporter import Exporter, samples
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import Release, serving, wait_gone

WEB = 'service="web"'


def ends(found: dict[str, float]) -> dict[str, float]:
    """Return how many workers ended, by how."""
    prefix = 'sockmgr_service_worker_ends_total{how="'
    return {k.removeprefix(prefix).partition('"')[0]: v
            for k, v in found.items() if k.startswith(prefix)}  # fmt: skip


def test_reloads_and_deaths_are_counted_from_manager_to_manager(tmp_path: Path) -> None:
    release = Release(tmp_path)
    config = release.config("workers = 2")
    with (
        Manager(tmp_path, config) as manager,
        Exporter("--control", str(manager.control), "--listen", "127.0.0.1:0") as exporter,
    ):
        assert manager.reload().code == 0
        release.deploy("2", "exits")
        assert manager.reload().code == 1
        manager.config.write_text("nonsense")
        assert manager.reload().code == 2
        manager.config.write_text(config)
        release.deploy("3")
        victim = min(serving(manager)[1])
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(serving(manager)[1] - {victim}) == 2, "its successor")
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "serving", "it to serve")
        wait_gone(manager)
        wait_for(lambda: len(manager.workers()) == 2, "the old workers to end")

        before = exporter.scrape()
        assert before["sockmgr_reloads_refused_total"] == 1
        assert before[f'sockmgr_service_rollouts_total{{outcome="committed",{WEB}}}'] == 1
        assert before[f'sockmgr_service_rollouts_total{{outcome="aborted",{WEB}}}'] == 1
        assert before[f'sockmgr_service_workers{{{WEB},state="ready"}}'] == 2
        how = ends(before)
        assert (how["drained"], how["crashed"]) == (2, 1)
        assert how["unready"] >= 1
        assert before[f"sockmgr_service_worker_starts_total{{{WEB}}}"] == 2 + sum(how.values())

        manager.kill9()
        assert exporter.scrape() == {"sockmgr_up": 0.0}
        manager.start()
        manager.wait_serving()
        after = exporter.scrape()
        assert after["sockmgr_start_time_seconds"] > before["sockmgr_start_time_seconds"]
        assert manager.run("upgrade").code == 0
        upgraded = exporter.scrape()
        assert upgraded["sockmgr_start_time_seconds"] > after["sockmgr_start_time_seconds"]
        for found in (before, after, upgraded):
            del found["sockmgr_start_time_seconds"]
        assert after == before == upgraded


def test_what_workers_use_is_told_if_it_is_wanted(tmp_path: Path) -> None:
    with Manager(tmp_path, Release(tmp_path).config()) as manager:
        done = manager.say("metrics", "--workers")
        assert done.code == 0, done.stderr
        found = samples(done.stdout)
        who = f'{{generation="1",{WEB},slot="1"}}'
        assert found[f"sockmgr_worker_resident_memory_bytes{who}"] > 0
        assert found[f"sockmgr_worker_proportional_memory_bytes{who}"] > 0
        # It may have begun in less than a tick of the clock, which counts as nothing.
        [worker] = manager.status()["services"]["web"]["workers"]
        times = psutil.Process(worker["pid"]).cpu_times()
        spent = found[f"sockmgr_worker_cpu_seconds_total{who}"]
        assert spent == pytest.approx(times.user + times.system, abs=0.05)
        assert found[f"sockmgr_worker_connections{who}"] == 0
        assert found["sockmgr_manager_resident_memory_bytes"] > 0
        assert found["sockmgr_manager_cpu_seconds_total"] > 0
