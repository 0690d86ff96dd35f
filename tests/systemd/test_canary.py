"""Canaries under systemd, in each way of accepting, and a manager that dies meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sockmgr.torture.load.result import Outcome
from tests.e2e.harness import wait_for
from tests.helpers.load import Load
from tests.systemd.machine import Machine
from tests.systemd.mishaps import DROP_IN, answered, killed
from tests.systemd.site import Site

PORTS = {"shared": 8000, "per-worker": 8001, "dispatch": 8002}  # the model is the service's name
KEYS = """app = "answers:app"
accept = "SERVICE"
http = { access_log = false }
[service.SERVICE.rollout]
canary = { share = "50%", for = "1s", check = ["sh", "smoke.sh"] }
"""
# Generation 2 of it turns bad when there is a file of that name.
ANSWERS = """
import json, os, pathlib
here = pathlib.Path(__file__).parent
version = (here / "version").read_text()
async def app(scope, receive, send):
    assert scope["type"] == "http"
    status = 500 if version == "2" and (here / "bad").exists() else 200
    body = json.dumps({"version": version, "pid": os.getpid()}).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site that serves version 1 in each way of accepting."""
    listen = {name: f"tcp://127.0.0.1:{port}" for name, port in PORTS.items()}
    site = Site(machine, listen, command=(), more=KEYS)
    for name in PORTS:
        (site.directory(name) / "answers.py").write_text(ANSWERS)
    deploy(site, "1", check="exit 0")
    site.install()
    site.drop_in(DROP_IN)
    site.start()
    return site


def deploy(site: Site, version: str, *, check: str) -> None:
    for name in PORTS:
        site.deploy(version, service=name)
        (site.directory(name) / "smoke.sh").write_text(check)


def reloaded(site: Site, *words: str) -> dict[str, Any]:
    """Reload all; return the verdicts by service, none if the manager dies meanwhile."""
    done = site.machine.run("sockmgr", "reload", "--json", *words, "-c", site.config, check=False)
    return {verdict["service"]: verdict for verdict in json.loads(done.stdout or "[]")}


def versions(site: Site) -> set[str]:
    return {site.get(port)["version"] for port in PORTS.values() for _ in range(10)}


def canaries(site: Site) -> dict[str, int]:
    """Return how many requests the canary of each service has answered, of those that have one."""
    services = site.status()["services"]
    found = {name: (services[name]["rollout"] or {}).get("canary") for name in PORTS}
    return {name: (one["compared"] or {}).get("requests", 0) for name, one in found.items() if one}


def past(site: Site, before: dict[str, int]) -> bool:
    """Whether each canary has answered more requests than `before`."""
    now = canaries(site)
    return all(now.get(name, 0) > before.get(name, 0) for name in PORTS)


def test_what_fails_is_taken_back_also_by_the_next_manager_and_what_does_not_goes_on(
    site: Site,
) -> None:
    with loads(site) as every:
        deploy(site, "2", check="exit 0")
        asking = threading.Thread(target=reloaded, args=(site, "--for", "5m"))
        asking.start()
        wait_for(lambda: past(site, {}), "requests to each canary")
        before = {name: site.workers(name) for name in PORTS}
        killed(site)
        asking.join()
        counted = canaries(site)
        wait_for(lambda: past(site, counted), "more requests to each canary")
        assert {name: site.workers(name) for name in PORTS} == before
        for name in PORTS:
            (site.directory(name) / "bad").touch()
        wait_for(lambda: not canaries(site), "them to be taken back")
        assert site.journal.count("more of its requests fail: errors ") >= len(PORTS)
        assert versions(site) == {"1"}
        deploy(site, "3", check="echo the door is shut; exit 3")
        for verdict in reloaded(site).values():
            why = "its check did not pass: exited with status 3: the door is shut"
            assert (verdict["verdict"], verdict["reason"]) == ("aborted", why)
        assert versions(site) == {"1"}
        deploy(site, "4", check="exit 0")
        assert {v["verdict"] for v in reloaded(site).values()} == {"committed"}
        assert versions(site) == {"4"}
        for load in every:
            answered(load.result, 20)
    # Nothing failed but what generation 2 answered when it was bad.
    assert {row.outcome for load in every for row in load.result.failed} == {Outcome.HTTP_5XX}


@contextlib.contextmanager
def loads(site: Site) -> Iterator[list[Load]]:
    """Load each service."""
    with contextlib.ExitStack() as stack:
        every = [stack.enter_context(site.load("short:rate=60", port=p)) for p in PORTS.values()]
        for load in every:
            answered(load.result, 20)
        yield every
