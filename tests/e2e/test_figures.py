"""What workers of `app =` count, as the manager tells it: it goes on from worker to worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.applications import config
from tests.e2e.apps import App
from tests.e2e.exporter import samples
from tests.e2e.harness import Manager, wait_for
from tests.helpers.asking import ask

FAILING = """
from app import app as well
async def app(scope, receive, send):
    if scope.get("path") == "/raises":
        raise ValueError("as it should")
    await well(scope, receive, send)
"""


def counted(manager: Manager) -> tuple[float, float, float]:
    """Return how many requests, how many that failed, and how many within the last bucket."""
    found = samples(manager.say("metrics").stdout)
    within = 'sockmgr_service_request_duration_seconds_bucket{le="68.7195",service="web"}'
    return (
        found['sockmgr_service_requests_total{service="web"}'],
        found['sockmgr_service_request_failures_total{service="web"}'],
        found[within],
    )


@pytest.mark.parametrize(("accept", "preload"), [("shared", "false"), ("dispatch", "true")])
def test_requests_are_counted_over_reloads_and_deaths_of_managers(
    accept: str, preload: str, tmp_path: Path
) -> None:
    app = App("asgi", tmp_path)
    (app.directory / "failing.py").write_text(FAILING)
    # Without hang_timeout the memory is there all the same.
    more = f'accept = "{accept}"\npreload = {preload}\nhang_timeout = 0'
    with Manager(tmp_path, config(app, target="failing:app", more=more)) as manager:
        assert counted(manager) == (0, 0, 0)
        for path in ("/", "/", "/raises"):
            ask(manager.target(), path)
        wait_for(lambda: counted(manager) == (3, 1, 3), "three requests to be counted")
        assert manager.reload().code == 0
        wait_for(lambda: len(manager.workers()) == 2, "the old workers to be gone")
        ask(manager.target(), "/raises")
        wait_for(lambda: counted(manager) == (4, 2, 4), "the next one")
        manager.kill9()
        manager.start()
        manager.wait_serving()
        assert counted(manager) == (4, 2, 4)
        ask(manager.target())
        wait_for(lambda: counted(manager) == (5, 2, 5), "one more")


def test_a_service_with_a_command_counts_no_requests(tmp_path: Path) -> None:
    text = f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
command = ["python3", "-m", "http.server", "--directory", "{tmp_path}"]
ready = {{ delay = "0.1s" }}
hang_timeout = "60s"
"""
    with Manager(tmp_path, text) as manager:
        assert manager.status()["services"]["web"]["requests"] is None
        assert "sockmgr_service_requests_total{" not in manager.say("metrics").stdout
