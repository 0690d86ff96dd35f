"""Two services that swap the addresses of their listeners, under load: nobody is lost or misled."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import LIGHT, answered
from tests.e2e.programs.site import NAMES, Site
from tests.helpers.load import Load


def addresses(directory: Path, kind: str) -> tuple[str, str]:
    """Return two that are free: a port that the kernel chooses would not be the same again."""
    if kind == "unix":
        return f"unix://{directory}/a", f"unix://{directory}/b"
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
    ):
        return f"tcp://127.0.0.1:{one.getsockname()[1]}", f"tcp://[::1]:{other.getsockname()[1]}"


def is_drained(manager: Manager) -> bool:
    return all(w["state"] == "ready" for name in NAMES for w in manager.workers(name))


@pytest.mark.parametrize(
    ("kind", "accept"), [("tcp", "shared"), ("tcp", "per-worker"), ("unix", "shared")]
)
def test_two_listeners_swap_their_addresses_and_each_client_gets_the_service_that_is_there(
    kind: str, accept: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, f'accept = "{accept}"', "workers = 2")
    site.scheme = addresses(tmp_path, kind)
    for name in NAMES:
        site.of[name].deploy(name)
    with Manager(tmp_path, site.config()) as manager:
        # Both services count their queues from 0, and now each has what the other has not.
        assert manager.reload("web").code == 0
        targets = [manager.target(name) for name in NAMES]
        with Load(targets[0], LIGHT) as first, Load(targets[1], LIGHT) as second:
            here, there = NAMES
            for _ in range(2):
                answered(first, here)
                answered(second, there)
                site.scheme = site.scheme[::-1]
                manager.config.write_text(site.config())
                told = manager.say("check", "-c", str(manager.config)).stdout
                assert "taken over from listen.back, the old one goes on as listen.back" in told
                assert manager.reload().code == 0
                if kind == "unix":  # both accept from one socket until the old ones have ended
                    wait_for(lambda: is_drained(manager), "the old workers to end")
                here, there = there, here
                assert {row.version for row in answered(first, count=20)} == {here}
                assert {row.version for row in answered(second, count=20)} == {there}
        for load in (first, second):
            assert not load.result.failed, load.result.failures()


def test_a_swap_in_which_one_service_fails_leaves_both_where_they_were(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.scheme = addresses(tmp_path, "tcp")
    for name in NAMES:
        site.of[name].deploy(name)
    with Manager(tmp_path, site.config()) as manager:
        targets = [manager.target(name) for name in NAMES]
        with Load(targets[0], LIGHT) as first, Load(targets[1], LIGHT) as second:
            answered(first, "web")
            answered(second, "back")
            site.scheme = site.scheme[::-1]
            manager.config.write_text(site.config())
            alone = manager.say("reload", "web")
            assert alone.code == 1
            assert "which back still serves" in alone.stderr
            assert "sockmgr reload web back" in alone.stderr
            site.of["back"].deploy("bad", "exits")
            assert {v["verdict"] for v in manager.reload().answer} == {"aborted"}
            assert {row.version for row in answered(first, count=20)} == {"web"}
            assert {row.version for row in answered(second, count=20)} == {"back"}
        for load in (first, second):
            assert not load.result.failed, load.result.failures()


APP = """
import json, os, pathlib
version = pathlib.Path("version").read_text()
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = json.dumps({"pid": os.getpid(), "version": version}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_the_dispatcher_passes_each_client_to_the_service_that_is_there_after_a_swap(
    kind: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, 'accept = "dispatch"')
    site.scheme = addresses(tmp_path, kind)

    def config() -> str:
        lines = (
            'app = "shop:app"' if line.startswith("command") else line
            for line in site.config().splitlines()
        )
        return "\n".join(lines)

    for name in NAMES:
        site.of[name].deploy(name)
        (site.of[name].directory / "shop.py").write_text(APP)
    with Manager(tmp_path, config()) as manager:
        assert manager.reload("web").code == 0
        targets = [manager.target(name) for name in NAMES]
        with Load(targets[0], LIGHT) as first, Load(targets[1], LIGHT) as second:
            answered(first, "web")
            answered(second, "back")
            site.scheme = site.scheme[::-1]
            manager.config.write_text(config())
            assert manager.reload().code == 0
            assert {row.version for row in answered(first, count=20)} == {"back"}
            assert {row.version for row in answered(second, count=20)} == {"web"}
        for load in (first, second):
            assert not load.result.failed, load.result.failures()
