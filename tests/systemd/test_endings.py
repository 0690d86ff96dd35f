"""The real manager under a real systemd: no process is left when none can come back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.e2e.harness import wait_for
from tests.systemd.endings import (
    at_the_start_limit,
    stopped,
    stopped_as_the_next_one_adopts,
    stopped_as_the_next_one_starts,
    stopped_while_it_waits_for_the_restart,
)
from tests.systemd.machine import Machine
from tests.systemd.mishaps import await_ready, guard_of, killed, nobody_is_left, restarted, serving
from tests.systemd.site import SERVICE, Site


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


def test_a_stop_ends_the_guard_of_an_earlier_manager_as_a_guard(machine: Machine) -> None:
    site = serving(machine)
    restarted(site)
    stopped(site)
    assert nobody_is_left(site)
    assert site.journal.count("guard started") == 1
    assert "stray process killed" not in site.journal


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
