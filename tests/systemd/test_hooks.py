"""A hook that is waited for, and managers that die or are restarted meanwhile: it runs once."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.mishaps import DROP_IN, HTTP, LOAD, answered, killed, restarted
from tests.systemd.site import SERVICE, Site

RAN = "this hook has run in version"


def test_a_hook_outlives_its_manager_and_lets_the_next_one_go_on(machine: Machine) -> None:
    hooks = "[service.SERVICE.hooks]\nbefore = ['./before']\nready = ['./ready']"
    site = Site(machine, HTTP, more=hooks)
    for moment in ("before", "ready"):
        write(site, moment, "exit 0")
    site.deploy("1")
    site.install()
    site.drop_in(DROP_IN)
    site.start()
    with site.load(LOAD) as load:
        answered(load.result, 20)
        version = 1
        for moment, succeed in (("before", killed), ("ready", restarted)):
            version += 1
            goes_on(site, moment, str(version), succeed)
            answered(load.result, 20)
    assert load.result.failures() == "none"


def goes_on(site: Site, moment: str, version: str, succeed: Callable[[Site], None]) -> None:
    """Have one manager follow another while a hook runs; return when its release serves."""
    gate = site.directory("http") / f"gate-{version}"
    os.mkfifo(gate)
    write(site, moment, f"echo {RAN} {version}; read x <{gate.name}")
    site.deploy(version)
    site.machine.systemctl("reload", "--no-block", SERVICE)
    wait_for(lambda: site.status()["services"]["http"]["hook"] == moment, f"hook {moment}")
    succeed(site)
    assert site.status()["services"]["http"]["hook"] == moment
    gate.write_text("go\n")
    wait_for(lambda: site.get()["version"] == version, f"version {version}")
    wait_for(lambda: site.status()["services"]["http"]["rollout"] is None, "the commit")
    assert site.journal.count(f"{RAN} {version}") == 1
    write(site, moment, "exit 0")


def write(site: Site, moment: str, text: str) -> None:
    path = site.directory("http") / moment
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
