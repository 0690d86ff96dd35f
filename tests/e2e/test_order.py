"""Services that start after others, and are stopped before them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.e2e.harness import Manager, wait_for
from tests.e2e.programs.release import answered, wait_in_log
from tests.e2e.programs.site import Site
from tests.helpers.load import Load, Target

NOTIFY = 'ready = "notify"'
READY = "says ready"
AFTER = 'after = ["back"]'


def started(manager: Manager) -> list[str]:
    """Return the workers that were started, in that order."""
    return [line.rpartition("worker=")[2].split()[0] for line in manager.log.splitlines()
            if "worker started" in line]  # fmt: skip


def state(manager: Manager, name: str) -> str:
    """Return how a service is; "" while there is no manager that could tell."""
    try:
        return str(manager.status()["services"][name]["state"])
    except OSError:
        return ""


@pytest.mark.parametrize("killed", [False, True], ids=["", "killed while it waits"])
def test_a_service_starts_when_the_one_it_is_after_serves(killed: bool, tmp_path: Path) -> None:
    site = Site(tmp_path, NOTIFY, fault=READY)
    gate = site.of["back"].hold("1")
    manager = Manager(tmp_path, site.config(web=AFTER))
    try:
        manager.start()
        wait_for(lambda: state(manager, "web") == "waiting", "web to wait")
        wait_in_log(manager, "worker started", "back@1.1")
        if killed:
            manager.kill9()
            manager.start()
            wait_for(lambda: state(manager, "web") == "waiting", "web to wait on")
        assert started(manager) == ["back@1.1"]
        with socket.socket() as client:  # who comes meanwhile waits
            client.settimeout(30)
            client.connect(manager.target("web").address)
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            gate.open()
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        manager.wait_serving()
        assert started(manager) == ["back@1.1", "web@1.1"]
    finally:
        manager.close()


def test_it_starts_anyway_when_the_other_had_all_its_time_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    site.of["back"].spoil("hangs")
    manager = Manager(tmp_path, site.config(web=AFTER, back="ready_timeout = 1"))
    try:
        manager.start()
        wait_in_log(manager, "waited in vain", "service=web")
        wait_for(lambda: state(manager, "web") == "serving", "web to serve")
        assert state(manager, "back") != "serving"
    finally:
        manager.close()


def test_a_service_that_a_reload_adds_waits_for_the_other_that_it_adds(tmp_path: Path) -> None:
    site = Site(tmp_path, NOTIFY, fault=READY)
    with Manager(tmp_path, site.config("back")) as manager:
        with Load(manager.target("back"), ("short:rate=60",)) as load:
            manager.config.write_text(site.config(web=AFTER))
            assert manager.reload().code == 0
            answered(load)
        assert not load.result.failed
        assert manager.status()["services"]["web"]["state"] == "serving"


def test_a_service_serves_on_until_those_after_it_have_ended(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with Manager(tmp_path, site.config(web=AFTER)) as manager:
        back, web = manager.target("back"), manager.target("web")
        with socket.socket(web.family) as client:
            client.connect(web.address)  # its worker has a request in hand, which is not whole yet
            client.sendall(b"GET / HTTP/1.1\r\n")
            with Load(back, ("short:rate=60",)) as load:
                answered(load)
                ending = threading.Thread(target=manager.stop)
                ending.start()
                wait_in_log(manager, "stopping")
                wait_for(lambda: refuses(web), "web to take nobody new")
                answered(load, count=20)
                result = load.stop()
            client.sendall(b"\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        ending.join()
        assert not result.failed
        ended = [line for line in manager.log.splitlines() if "worker ended" in line]
        assert [line.rpartition("worker=")[2].split()[0] for line in ended] == [
            "web@1.1", "back@1.1",
        ]  # fmt: skip


def refuses(target: Target) -> bool:
    """Whether nobody can connect any more."""
    with socket.socket(target.family) as client:
        return client.connect_ex(target.address) != 0


def test_services_that_one_reload_removes_end_in_the_order_of_a_stop(tmp_path: Path) -> None:
    site = Site(tmp_path)
    other = '[service.other]\ncommand = ["sleep", "60"]\nlisten = []\nready = { delay = 0 }\n'
    other += "rollout = { probation = 0 }\n"
    with Manager(tmp_path, site.config(web=AFTER) + other) as manager:
        manager.config.write_text(other)
        assert manager.reload().code == 0
        ended = [line for line in manager.log.splitlines() if "stopped service=" in line]
        assert [line.rpartition("service=")[2].split()[0] for line in ended] == ["web", "back"]


def test_a_service_that_was_removed_stays_so_when_the_manager_dies_while_it_drains(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    with Manager(tmp_path, site.config()) as manager:
        web = manager.target("web")
        with socket.socket(web.family) as client:
            client.connect(web.address)
            client.sendall(b"GET / HTTP/1.1\r\n")
            manager.config.write_text(site.config("back"))
            manager.run("reload", "--timeout", "1")
            wait_for(lambda: generation(manager) == 2, "the reload to have committed")
            manager.kill9()
            manager.start()
            wait_for(lambda: state(manager, "back") == "serving", "the next manager")
            client.sendall(b"\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: list(manager.status()["services"]) == ["back"], "web to be gone")


def generation(manager: Manager) -> int:
    return int(manager.status()["services"]["back"]["generation"])
