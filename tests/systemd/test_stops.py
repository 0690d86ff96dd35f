"""A service that is stopped under load: who comes waits for the next start, or is refused."""

from __future__ import annotations

import re

from sockmgr.torture.load.result import Outcome
from tests.e2e.harness import wait_for
from tests.systemd.endings import SOCKET
from tests.systemd.machine import Machine
from tests.systemd.mishaps import answered, await_ready, serving
from tests.systemd.site import SERVICE, Site

LOAD = ("short:rate=100", "slow:conns=2,s=0.3")


def test_whoever_comes_in_a_stop_is_answered_by_the_next_start_if_the_socket_stays(
    machine: Machine,
) -> None:
    site = serving(machine)
    before = site.main_pid
    with site.load(*LOAD) as load:
        answered(load.result, 40)
        for _ in range(2):
            machine.systemctl("stop", SERVICE)
            await_ready(site)
            answered(load.result, 40)
    assert load.result.failures() == "none"
    assert site.main_pid != before


def test_whoever_comes_in_a_stop_is_refused_and_not_reset_if_the_socket_is_stopped_as_well(
    machine: Machine,
) -> None:
    site = serving(machine)
    for _ in range(2):
        machine.systemctl("start", SOCKET, SERVICE)
        with site.load(*LOAD) as load:
            answered(load.result, 40)
            machine.systemctl("stop", SOCKET, SERVICE)
            wait_for(lambda: refused(load.result.failed) > 0, "clients to be refused")
        assert refused(load.result.failed) == len(load.result.failed), load.result.failures()


def test_in_its_stop_delay_it_says_so_and_serves_on_and_services_end_in_the_order_of_after(
    machine: Machine,
) -> None:
    site = Site(machine, {"http": "tcp://127.0.0.1:8000", "admin": "tcp://127.0.0.1:8001"})
    site.write(f"stop_delay = '1h'\n{site.text}\nafter = ['http']")
    for service in ("http", "admin"):
        site.deploy("1", service=service)
    site.install()
    site.start()
    before = site.main_pid
    assert health(site, "--ready") == 0
    with site.load(*LOAD) as load, site.load("short:rate=40", port=8001) as other:
        answered(load.result, 40)
        machine.systemctl("stop", "--no-block", SERVICE)
        wait_for(lambda: health(site, "--ready") == 1, "it to want nobody new")
        assert health(site) == 0
        wait_for(lambda: "stopping" in machine.property(SERVICE, "StatusText"), "its status")
        for one in (load, other):
            answered(one.result, 40)
        assert site.main_pid == before
        machine.run("sockmgr", "stop", "-c", site.config)  # once more: the rest is left out
        await_ready(site)
        for one in (load, other):
            answered(one.result, 40)
    for one in (load, other):
        assert one.result.failures() == "none"
    assert site.main_pid != before
    began = re.findall(r"worker started worker=(\w+)@1", site.journal)
    ended = re.findall(r"worker ended worker=(\w+)@1", site.journal)
    assert began == ["http", "http", "admin", "admin"] * 2  # of both managers
    assert ended == ["admin", "admin", "http", "http"]


def test_a_service_that_is_down_for_too_long_ends_the_manager_and_systemd_starts_another(
    machine: Machine,
) -> None:
    site = serving(machine, more="when_down = '1s'")
    site.deploy("2", fault="exits")
    machine.run("kill", "-KILL", *map(str, site.workers()))
    wait_for(lambda: "down for too long service=http" in site.journal, "the manager to give up")
    with site.load(*LOAD) as load:
        wait_for(lambda: machine.property(SERVICE, "NRestarts") != "0", "the restart")
        assert "status=1/FAILURE" in site.journal
        site.deploy("2")
        answered(load.result, 40)
    assert load.result.failures() == "none"


def health(site: Site, *words: str) -> int:
    return site.machine.run("sockmgr", "health", *words, "-c", site.config, check=False).returncode


def refused(rows: list[object]) -> int:
    return sum(row.outcome is Outcome.REFUSED for row in rows)
