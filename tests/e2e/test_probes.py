"""Releases that must prove themselves before a client meets them, and workers after that."""

from __future__ import annotations

import json
import re
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.applications import config
from tests.e2e.apps import ROOT, App
from tests.e2e.commands import UVICORN
from tests.e2e.commands import config as config_of_command
from tests.e2e.harness import BIN, Manager, wait_for
from tests.e2e.probing import ACCEPTS, LOAD, READY, manager_of, named, probed, tell_health
from tests.e2e.programs.release import answered, wait_in_log
from tests.e2e.servers import has_answered
from tests.helpers.asking import ask
from tests.helpers.load import Load


@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_release_that_accepts_and_answers_500_is_met_by_nobody_and_the_verdict_has_its_answer(
    accept: str, tmp_path: Path
) -> None:
    app = probed(tmp_path)
    ready = READY.replace("60s", "5s")
    with (
        manager_of(app, tmp_path, ready, f'accept = "{accept}"') as manager,
        Load(manager.target(), LOAD) as load,
    ):
        app.deploy_code('VERSION = "2"\nSTATUS = 500\nBODY = b"no database"')
        done = manager.say("reload")
        assert done.code == 1
        assert "generation 1 keeps serving" in done.stdout
        answer = "probe GET /healthz on http answered 500 (expected 200): 'no database'"
        (why,) = (line for line in done.stdout.splitlines() if line.startswith("generation 2 "))
        assert why.endswith(f" was not ready within 5 s: {answer}")
        assert f"not ready within 5 s: {answer}" in manager.log
        app.deploy("3")
        assert manager.reload().code == 0
        wait_for(partial(has_answered, load, "3"), "the good release to answer")
        result = load.stop()
        assert not result.failed, result.failures()
        assert not [row for row in result.rows if row.version == "2"]


@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_probe_goes_on_when_the_manager_is_killed_in_the_middle_of_it(
    accept: str, tmp_path: Path
) -> None:
    app = probed(tmp_path)
    with (
        manager_of(app, tmp_path, READY, f'accept = "{accept}"') as manager,
        Load(manager.target(), LOAD) as load,
    ):
        tell_health(app, 503)
        app.deploy("2")
        manager.run("reload", "--timeout", "1s")
        told = "probe GET /healthz on http answered 503 (expected 200)"
        wait_for(lambda: {w["probe"] for w in named(manager).values()} == {"", told}, "the probes")
        # That of the workers, not the longest that a rollout could take.
        assert manager.status()["services"]["web"]["rollout"]["deadline"] <= 60
        manager.kill9()
        manager.start()
        manager.wait_serving()
        wait_for(lambda: {w["probe"] for w in named(manager).values()} == {"", told}, "new probes")
        assert manager.status()["services"]["web"]["generation"] == 1
        tell_health(app)
        wait_for(partial(has_answered, load, "2"), "the next manager to finish the rollout")
        result = load.stop()
        assert not result.failed, result.failures()


def test_a_server_with_a_command_is_probed_as_well_and_one_by_tcp(tmp_path: Path) -> None:
    app = App("asgi", tmp_path)
    for more in ('ready = { http = "/version" }\naccept = "per-worker"', "ready = { tcp = true }"):
        with Manager(tmp_path, config_of_command(app, UVICORN, more=more)) as manager:
            assert manager.reload().code == 0


QUIET = re.findall(r"```python\n(.*?)```", (ROOT / "docs/releases.md").read_text(), re.DOTALL)
QUIET_CONFIG = """
[listen]
http = "tcp://127.0.0.1:0"
[service.web]
PROGRAM
cwd = "CWD"
ready = { http = "/healthz", expect = ["2xx", "4xx"], timeout = "20s" }
"""


@pytest.mark.parametrize(
    ("example", "program", "name", "which"),
    [
        ("asgi", 'app = "app:app"', "version.py", 0),
        ("asgi", 'command = ["BIN/uvicorn", "--fd", "{http}", "app:app"]', "version.py", 0),
        ("wsgi", 'command = ["BIN/gunicorn", "--access-logfile=-", "app:app"]',
         "gunicorn.conf.py", 1),
    ],
)  # fmt: skip
def test_probes_are_left_out_of_the_access_log_as_the_page_says(
    example: str, program: str, name: str, which: int, tmp_path: Path
) -> None:
    app = App(example, tmp_path)
    with (app.directory / name).open("a") as file:
        file.write(f"\n{QUIET[which]}")
    text = QUIET_CONFIG.replace("PROGRAM", program.replace("BIN", str(BIN)))
    text = text.replace("CWD", str(app.directory))
    with Manager(tmp_path, text) as manager:
        assert ask(manager.target(), "/version")
        wait_in_log(manager, "GET /version")
        assert "GET /healthz" not in manager.log


SMOKE = """
import os, urllib.request
with urllib.request.urlopen(os.environ["SOCKMGR_PROBE_URL"] + "/version", timeout=30) as answer:
    open("asked", "ab").write(answer.read() + b"\\n")
"""


@pytest.mark.parametrize("accept", ["shared", "dispatch"])
def test_a_readiness_command_reaches_the_new_workers_by_an_url_before_any_client_does(
    accept: str, tmp_path: Path
) -> None:
    app = probed(tmp_path)
    (app.directory / "smoke.py").write_text(SMOKE)
    ready = f'ready = {{ exec = ["{sys.executable}", "-S", "smoke.py"] }}'
    rollout = 'warmup = ["/version"]'
    with (
        manager_of(app, tmp_path, ready, f'accept = "{accept}"', rollout=rollout) as manager,
        Load(manager.target(), LOAD) as load,
    ):
        (app.directory / "asked").unlink()
        app.deploy("2")
        (verdict,) = manager.reload().answer
        assert verdict["verdict"] == "committed"
        assert verdict["receipt"]["warm_up"]["requests"] == 6
        asked = [json.loads(line) for line in (app.directory / "asked").read_text().splitlines()]
        assert {each["version"] for each in asked} == {"2"}
        result = load.stop()
        assert not result.failed, result.failures()


def test_an_application_that_speaks_tls_is_probed_by_tls(tmp_path: Path) -> None:
    app = probed(tmp_path)
    certificate = ROOT / "tests" / "worker" / "programs" / "tls" / "site.pem"
    text = config(app, target="probed:app", more=READY).replace(
        "access_log",
        f'certfile = "{certificate}"\nkeyfile = "{certificate.with_suffix(".key")}"\naccess_log',
    )
    with Manager(tmp_path, text) as manager:
        assert manager.reload().code == 0


# --- Warm-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ACCEPTS)
def test_clients_are_spared_what_the_first_requests_to_a_worker_take(
    accept: str, tmp_path: Path
) -> None:
    app = probed(tmp_path)
    rollout = 'warmup = ["/cold", "/nowhere"]'
    with manager_of(app, tmp_path, f'accept = "{accept}"', rollout=rollout) as manager:
        with Load(manager.target(), LOAD) as load:
            (verdict,) = manager.reload().answer
            result = load.stop()
        assert not result.failed, result.failures()
        warm_up = verdict["receipt"]["warm_up"]
        assert (warm_up["requests"], warm_up["failed"], warm_up["is_cut"]) == (12, 0, False)
        assert warm_up["first"] >= 0.5
        # On a shared queue the last request may be the first that one of the workers gets.
        assert accept == "shared" or warm_up["last"] < warm_up["first"]


def test_a_warm_up_is_done_again_by_the_manager_that_follows_one_that_was_killed(
    tmp_path: Path,
) -> None:
    app = probed(tmp_path)
    with (
        manager_of(app, tmp_path, rollout='warmup = ["/cold"]') as manager,
        Load(manager.target(), LOAD) as load,
    ):
        (app.directory / "cold").touch()
        app.deploy("2")
        manager.run("reload", "--timeout", "1s")
        wait_for(lambda: len(named(manager)) == 4, "the new workers")
        # They say READY=1 once, and the manager that hears it does not live to see them warm.
        wait_for(lambda: manager.log.count("Application startup complete") == 4, "their start")
        time.sleep(0.2)
        manager.kill9()
        manager.start()
        manager.wait_serving()
        (app.directory / "cold").unlink()
        wait_for(partial(has_answered, load, "2"), "the next manager to finish the rollout")
        result = load.stop()
        assert not result.failed, result.failures()


# --- Healthy -------------------------------------------------------------------------------------

HEALTHY = 'healthy = { http = "/healthz", every = "100ms", timeout = "10s" }'


@pytest.mark.parametrize("accept", ["per-worker", "dispatch"])
def test_a_worker_that_fails_its_probes_is_replaced_and_nothing_is_lost(
    accept: str, tmp_path: Path
) -> None:
    app = probed(tmp_path)
    with (
        manager_of(app, tmp_path, HEALTHY, f'accept = "{accept}"') as manager,
        Load(manager.target(), LOAD) as load,
    ):
        before = named(manager)
        tell_health(app, 503, before["1.2"]["pid"])
        wait_in_log(manager, "worker unhealthy", "web@1.2", "answered 503", "3 times in a row")
        wait_for(lambda: set(named(manager)) == {"1.1", "1.3"}, "its successor")
        assert named(manager)["1.1"]["pid"] == before["1.1"]["pid"]
        answered(load, count=20)
        result = load.stop()
        assert not result.failed, result.failures()


def test_when_all_workers_fail_their_probes_one_is_replaced_and_no_other_until_they_are_well(
    tmp_path: Path,
) -> None:
    app = probed(tmp_path)
    with (
        manager_of(app, tmp_path, HEALTHY, 'accept = "per-worker"') as manager,
        Load(manager.target(), LOAD) as load,
    ):
        tell_health(app, 503)
        wait_in_log(manager, "no worker is healthy", "service=web")

        def degraded() -> bool:
            return manager.status()["services"]["web"]["state"] == "degraded"

        wait_for(lambda: len(named(manager)) == 2 and "1.3" in named(manager), "one successor")
        wait_for(lambda: all(w["probe"] for w in named(manager).values()), "it to fail as well")
        wait_for(lambda: manager.log.count("worker unhealthy") == 3, "that to be told")
        assert degraded()
        after = named(manager)
        answered(load, count=60)
        assert set(named(manager)) == set(after)
        tell_health(app)
        wait_for(lambda: manager.status()["services"]["web"]["state"] == "serving", "its health")
        result = load.stop()
        assert not result.failed, result.failures()
