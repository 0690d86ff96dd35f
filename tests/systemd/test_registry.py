"""systemd 260 and later list a manager among the Varlink services of the machine."""

from __future__ import annotations

import json

import pytest

from sockmgr.manager.control.registration import REGISTRY
from tests.e2e.apps import ROOT
from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.mishaps import HTTP, killed
from tests.systemd.site import SERVICE, Site

DROP_IN = (ROOT / "contrib/systemd/drop-ins/varlink-registry.conf").read_text()
CONTROL = "/run/sockmgr-shop/shop.sock"
NAME = "io.sockmgr.Manager.shop"
KNOWS_A_REGISTRY = 260


def registered(machine: Machine) -> dict[str, str]:
    """Return what is registered, by varlinkctl where it can tell."""
    if machine.version >= KNOWS_A_REGISTRY:
        told = json.loads(machine.run("varlinkctl", "list-registry", "--json=short").stdout)
        return {each["interface"]: each["entrypoint"] for each in told}
    script = 'cd "$0" && for each in *; do echo "$each=unix:$(readlink "$each")"; done'
    lines = machine.run("sh", "-c", script, str(REGISTRY)).stdout.split()
    return dict(line.split("=") for line in lines)


@pytest.mark.parametrize("user", ["root", "sockmgr"])
def test_a_manager_is_registered_for_as_long_as_it_runs(machine: Machine, user: str) -> None:
    machine.run("mkdir", "-p", str(REGISTRY))
    site = Site(machine, HTTP, name="shop")
    site.install()
    if user == "root":
        site.drop_in(f"[Service]\nUser=root\nGroup=root\nReadWritePaths={REGISTRY}\n")
    else:
        ours = DROP_IN.replace("sockmgr/sockmgr.sock", "sockmgr-shop/shop.sock")
        site.drop_in(ours.replace("io.sockmgr.Manager", NAME))
    site.start()
    assert registered(machine)[NAME] == f"unix:{CONTROL}"
    killed(site)
    wait_for(lambda: registered(machine).get(NAME) == f"unix:{CONTROL}", "the next one")
    machine.systemctl("stop", SERVICE)
    assert NAME not in registered(machine)
