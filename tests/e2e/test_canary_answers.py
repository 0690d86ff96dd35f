"""A canary that answers worse than what serves beside it is taken back by itself, by numbers."""

from __future__ import annotations

import json
import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from sockmgr.api.records import EventKind
from sockmgr.torture.load.result import Outcome
from tests.e2e.apps import App
from tests.e2e.harness import Manager, wait_for
from tests.helpers.load import Load, Result

# What is deployed: `fails` answers 3 in 100 with 500, `slow` takes twice as long as all others do.
ANSWERS = """
import asyncio, itertools
from app import app as well
import version
numbers = itertools.count(1)
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(0.2 if version.KIND == "slow" else 0.1)
        if version.KIND == "fails" and next(numbers) % 33 == 0:
            raise ValueError("3 in 100")
    await well(scope, receive, send)
"""


def deploy(app: App, number: int, kind: str) -> None:
    app.deploy_code(f'VERSION = "{number}"\nKIND = "{kind}"')


def served(tmp_path: Path, *, accept: str = "shared", canary: str) -> tuple[App, str]:
    """Return an application, and a config that runs it."""
    app = App("asgi", tmp_path)
    (app.directory / "answers.py").write_text(ANSWERS)
    deploy(app, 1, "well")
    return (
        app,
        f"""
[listen]
http = "tcp://127.0.0.1:0"

[service.web]
app = "answers:app"
accept = "{accept}"
workers = 2
cwd = "{app.directory}"

[service.web.http]
access_log = false

[service.web.rollout]
canary = {canary}
""",
    )


def is_only_the_canarys(result: Result) -> bool:
    """Whether nothing failed but what generation 2 answered with 500."""
    return {row.outcome for row in result.failed} <= {Outcome.HTTP_5XX}


@pytest.mark.parametrize(("accept", "kind"), [("per-worker", "slow"), ("dispatch", "fails")])
def test_a_canary_that_answers_worse_is_taken_back_and_the_receipt_has_the_numbers(
    accept: str, kind: str, tmp_path: Path
) -> None:
    app, config = served(tmp_path, accept=accept, canary='{ share = "25%", for = "5m" }')
    with Manager(tmp_path, config) as manager, Load(manager.target(), ["short:rate=150"]) as load:
        deploy(app, 2, kind)
        done = manager.run("reload", timeout=150)
        result = load.stop()
        assert done.code == 1, done.stdout
        (verdict,) = json.loads(done.stdout)
        found = verdict["receipt"]["canary"]
        assert found["finding"] == "worse"
        assert min(found["requests"], found["old_requests"]) >= 20
        if kind == "fails":
            assert found["why"] == "more of its requests fail"
            assert found["errors"] > 0.01
            assert found["old_errors"] == 0
        else:
            assert found["why"] == "its requests take longer"
            assert found["p95"] > found["old_p95"] > 0.09
        assert verdict["reason"].startswith(f"{found['why']}: errors ")
        assert is_only_the_canarys(result), result.failures()


def test_a_canary_goes_on_when_nothing_is_worse_and_when_too_few_came_to_tell(
    tmp_path: Path,
) -> None:
    app, config = served(tmp_path, canary='{ share = "50%", for = "2s" }')
    with Manager(tmp_path, config) as manager:
        deploy(app, 2, "slow")
        done = manager.say("reload")
        assert done.code == 0, done.stderr
        assert "canary: errors 0.0 % (old 0.0 %), p95 0 ms (old 0 ms), of 0 requests" in done.stdout
        assert "too few to tell" in done.stdout
        assert "proved little: 0 requests (old 0) came, of 100 wanted to each" in done.stdout
        with Load(manager.target(), ["short:rate=100"]) as load:
            deploy(app, 3, "slow")
            (verdict,) = json.loads(manager.run("reload", timeout=120).stdout)
            assert not load.stop().failed
        assert verdict["verdict"] == "committed"
        assert verdict["receipt"]["canary"]["requests"] > 0
        assert verdict["receipt"]["canary"]["wanted"] == 100
        assert verdict["receipt"]["canary"]["finding"] != "worse"


def test_on_a_shared_queue_the_next_manager_goes_on_with_the_numbers(tmp_path: Path) -> None:
    app, config = served(tmp_path, canary='{ share = "25%", for = "5m" }')
    with Manager(tmp_path, config) as manager, Load(manager.target(), ["short:rate=150"]) as load:
        deploy(app, 2, "fails")
        os.kill(manager.pid, signal.SIGHUP)
        before = wait_for(partial(requests, manager), "requests to the canary")
        manager.kill9()
        manager.start()
        manager.wait_serving()
        wait_for(lambda: manager.events(EventKind.ABORTED), "it to be taken back", timeout=120)
        (aborted,) = manager.events(EventKind.ABORTED)
        (counted,) = re.findall(r"of (\d+) requests", aborted["why"])
        assert aborted["why"].startswith("more of its requests fail: errors ")
        assert int(counted) > before
        result = load.stop()
        assert is_only_the_canarys(result), result.failures()


def requests(manager: Manager) -> int:
    """Return how many requests the canary has answered, once it has some."""
    rollout = manager.status()["services"]["web"]["rollout"] or {}
    compared = (rollout.get("canary") or {}).get("compared") or {}
    return compared.get("requests", 0)  # type: ignore[no-any-return]
