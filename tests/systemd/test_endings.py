"""The real manager under a real systemd: no process is left when none can come back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE, Site
from tests.systemd.test_adoption import await_ready, guard_of, kill, killed, serving

SOCKET = "shop-http.socket"


def stopped(site: Site) -> None:
    site.machine.systemctl("stop", SOCKET, SERVICE)


def stopped_while_it_waits_for_the_restart(site: Site) -> None:
    site.drop_in("[Service]\nRestartSec=1h\n")
    kill(site)
    wait_for(lambda: state(site) == "activating", "the wait for the restart")
    site.machine.systemctl("stop", SOCKET, SERVICE)


def stopped_as_the_next_one_starts(site: Site) -> None:
    old = site.main_pid
    kill(site)
    wait_for(lambda: site.main_pid not in (0, old), "the next manager's process")
    site.machine.systemctl("stop", SOCKET, SERVICE)


def stopped_as_the_next_one_adopts(site: Site) -> None:
    kill(site)
    wait_for(lambda: "worker adopted" in site.journal, "the adoption")
    site.machine.systemctl("stop", SOCKET, SERVICE)


def at_the_start_limit(site: Site) -> None:
    site.drop_in("[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n[Service]\nRestartSec=1ms\n")
    killed(site)
    kill(site)
    wait_for(lambda: state(site) == "failed", "the start limit")


def state(site: Site) -> str:
    return site.machine.property(SERVICE, "ActiveState")


def nobody_is_left(site: Site) -> bool:
    return site.machine.run("ps", "-u", "sockmgr", check=False).returncode == 1


@pytest.mark.parametrize(
    "end",
    [
        stopped,
        stopped_while_it_waits_for_the_restart,
        stopped_as_the_next_one_starts,
        stopped_as_the_next_one_adopts,
        at_the_start_limit,
    ],
)
def test_nobody_is_left(machine: Machine, end: Callable[[Site], None]) -> None:
    site = serving(machine)
    assert not nobody_is_left(site)
    end(site)
    wait_for(lambda: nobody_is_left(site), "the end of all")


def test_a_stop_waits_until_all_have_drained(machine: Machine) -> None:
    site = serving(machine)
    killed(site)
    stopped(site)
    assert nobody_is_left(site)
    assert "worker killed" not in site.journal


def test_systemctl_status_names_the_guard_and_its_unit(machine: Machine) -> None:
    site = serving(machine)
    told = site.machine.systemctl("status", "--full", SERVICE).stdout
    assert re.search(rf"─{guard_of(site)} \"sockmgr-guard of shop.service\" -s \S+python", told), (
        told
    )
    assert "while read" not in told


def test_a_guard_that_is_killed_is_replaced(machine: Machine) -> None:
    site = serving(machine)
    before, first = site.workers(), guard_of(site)
    machine.run("kill", "-KILL", str(first))
    wait_for(lambda: site.journal.count("guard started") == 2, "another guard")
    killed(site)
    assert guard_of(site) != first
    assert site.workers() == before
    stopped_while_it_waits_for_the_restart(site)
    wait_for(lambda: nobody_is_left(site), "the end of all")


def test_a_guard_that_was_killed_with_the_manager_is_replaced(machine: Machine) -> None:
    site = serving(machine)
    before, first = site.workers(), guard_of(site)
    machine.run("kill", "-KILL", str(site.main_pid), str(first))
    wait_for(lambda: machine.property(SERVICE, "NRestarts") == "1", "the restart")
    await_ready(site)
    assert site.workers() == before
    assert guard_of(site) != first
