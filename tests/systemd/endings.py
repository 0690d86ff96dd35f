"""Ends of a unit, and whether anybody is left."""

from __future__ import annotations

from tests.e2e.harness import wait_for
from tests.systemd.mishaps import kill, killed
from tests.systemd.site import SERVICE, Site

SOCKET = "shop-http.socket"


def stopped(site: Site) -> None:
    site.machine.systemctl("stop", SOCKET, SERVICE)


def stopped_while_it_waits_for_the_restart(site: Site) -> None:
    site.drop_in("[Service]\nRestartSec=1h\n")
    kill(site)
    wait_for(lambda: state(site) == "activating", "the wait for the restart")
    site.machine.systemctl("stop", SOCKET, SERVICE)


def stopped_as_the_next_one_starts(site: Site) -> None:
    kill(site)
    wait_for(lambda: site.main_pid, "the next manager's process")
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
