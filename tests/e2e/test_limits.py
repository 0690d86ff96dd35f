"""Workers that reach a limit are recycled under load: nobody is lost, and a loop is slowed down."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sockmgr.api.records import EventKind
from tests.e2e import applications, commands
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import wait_in_log
from tests.helpers.load import Load

LOAD = ("short:rate=100", "slow:conns=2,s=0.3")
KEPT = ("kat:conns=8,think=0.01",)


def web(manager: Manager) -> dict[str, Any]:
    found: dict[str, Any] = manager.status()["services"]["web"]
    return found


def recycled(manager: Manager, limit: str) -> int:
    count: int = web(manager)["counts"][limit]
    return count


def at_most_one_more(manager: Manager, workers: int) -> bool:
    """Tell from the log whether there never was more than one process beside the wanted ones."""
    living = most = 0
    for line in manager.log.splitlines():
        living += ("worker started" in line) - ("worker ended" in line)
        most = max(most, living)
    return most <= workers + 1


@pytest.mark.parametrize(
    ("accept", "unix"),
    [("shared", False), ("shared", True), ("per-worker", False), ("dispatch", False)],
    ids=["shared", "unix", "per-worker", "dispatch"],
)
def test_workers_of_an_app_that_age_lose_no_request_also_when_the_manager_is_killed(
    accept: str, unix: bool, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    address = f"unix://{tmp_path}/http.sock" if unix else "tcp://127.0.0.1:0"
    more = f'accept = "{accept}"\nmax_age = "500ms"'
    with Manager(tmp_path, applications.config(app, more=more, address=address)) as manager:
        with Load(manager.target(), LOAD + KEPT) as load:
            wait_for(lambda: recycled(manager, "max_age") >= 2, "two that have aged")
            manager.kill9()
            manager.start()
            manager.wait_serving()
            wait_for(lambda: recycled(manager, "max_age") >= 4, "two more, counted on")
            result = load.stop()
        assert not result.failed, result.failures()
        assert at_most_one_more(manager, 2)
        ended = manager.events(EventKind.WORKER_ENDED)
        assert {event["fields"]["was"] for event in ended} == {"draining"}


@pytest.mark.parametrize("accept", ["shared", "per-worker"])
def test_workers_of_a_command_that_age_lose_no_new_connection(accept: str, tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    more = f'accept = "{accept}"\nmax_age = "500ms"'
    text = commands.config(app, commands.UVICORN, workers=2, more=more)
    with Manager(tmp_path, text) as manager:
        with Load(manager.target(), LOAD) as load:
            wait_for(lambda: recycled(manager, "max_age") >= 4, "four that have aged")
            result = load.stop()
        assert not result.failed, result.failures()
        assert "this loses requests" not in manager.log


def test_an_app_is_recycled_by_the_number_of_its_requests_and_no_reload_is_disturbed(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, applications.config(app, more="max_requests = 50")) as manager:
        with Load(manager.target(), LOAD) as load:
            wait_for(lambda: recycled(manager, "max_requests") >= 1, "one that had its requests")
            assert manager.reload().code == 0
            result = load.stop()
        assert not result.failed, result.failures()
        (first, *_) = manager.events(EventKind.WORKER_RECYCLED)
        assert first["fields"]["limit"] == "max_requests"
        number, of, limit = first["why"].removeprefix("max_requests reached: ").split()
        assert (of, limit) == ("of", "50")
        assert int(number) >= 45


def test_a_limit_below_what_a_worker_needs_is_told_once_and_slows_recycling_down(
    tmp_path: Path,
) -> None:
    app = App("asgi", tmp_path)
    with Manager(tmp_path, applications.config(app, more='max_rss = "1M"')) as manager:
        wait_in_log(manager, "worker recycled", "limit=max_rss", "of 1M")
        wait_in_log(manager, "recycling slowed down", "service=web", "is recycled in 60 s")

        def all_are_worn() -> bool:
            return all(worker["recycle"] for worker in manager.workers())

        wait_for(lambda: len(manager.workers()) == 2 and all_are_worn(), "both to be too large")
        service = web(manager)
        assert service["state"] == "serving"
        assert 0 < service["recycle_pause"] <= 60
        shown = manager.say("status").stdout
        assert "serving (recycles in vain)" in shown
        assert "ready (max_rss reached: " in shown
        metrics = manager.say("metrics").stdout
        assert 'workers_recycled_total{limit="max_rss",service="web"} 1.0' in metrics
        told = Counter(event["event"] for event in manager.events(EventKind.RECYCLING_SLOWED_DOWN))
        assert told == {"recycling-slowed-down": 1}
        assert manager.reload().code == 0
