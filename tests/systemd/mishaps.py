"""What happens to the manager of a site under systemd, and what is left of it."""

from __future__ import annotations

from sockmgr.torture.load.result import Outcome
from tests.e2e.harness import wait_for
from tests.helpers.load import Result
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE, Site

HTTP = {"http": "tcp://127.0.0.1:8000"}
LOAD = "short:rate=100"
DROP_IN = "[Service]\nRestartSec=100ms\n"


def serving(machine: Machine, *, more: str = "", drop_in: str = "", fault: str = "none") -> Site:
    """Return a site that serves version 1; `more` is for its config, `drop_in` for its service."""
    site = Site(machine, HTTP, more=more)
    site.deploy("1", fault=fault)
    site.install()
    site.drop_in(DROP_IN + drop_in)
    site.start()
    return site


def killed(site: Site) -> None:
    """Kill the manager as nobody can prevent it; return when the next one serves."""
    restarts = site.machine.property(SERVICE, "NRestarts")
    kill(site)
    wait_for(lambda: site.machine.property(SERVICE, "NRestarts") != restarts, "the restart")
    await_ready(site)


def restarted(site: Site) -> None:
    site.machine.systemctl("restart", SERVICE)


def hung(site: Site) -> None:
    """Stop the manager, so that the watchdog kills it."""
    old = site.main_pid
    site.machine.run("kill", "-STOP", str(old))
    wait_for(lambda: site.main_pid not in (0, old), "the watchdog, and another manager")
    await_ready(site)


def kill(site: Site) -> None:
    """Kill the manager as nobody can prevent it; return when systemd knows that it has ended."""
    old = site.main_pid
    site.machine.run("kill", "-KILL", str(old))
    wait_for(lambda: site.main_pid != old, "systemd to see the end")


def await_ready(site: Site) -> None:
    wait_for(lambda: site.machine.property(SERVICE, "ActiveState") == "active", "READY=1")


def answered(result: Result, number: int) -> None:
    """Wait for so many answers more."""

    def count() -> int:
        return sum(row.outcome is Outcome.OK for row in list(result.rows))

    enough = count() + number
    wait_for(lambda: count() >= enough, f"{number} answers")


def nobody_is_left(site: Site) -> bool:
    return site.machine.run("ps", "-u", "sockmgr", check=False).returncode == 1


def guard_of(site: Site) -> int:
    return int(site.machine.run("pgrep", "-f", "^sockmgr-guard").stdout)
