"""The way back under systemd: it outlives the manager, and a stop of the unit ends it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.systemd.machine import Machine
from tests.systemd.mishaps import HTTP, LOAD, answered, killed, restarted
from tests.systemd.site import SERVICE, Site


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site that serves release 1, to which the directory of the service is a link."""
    site = Site(machine, HTTP)
    link = site.directory("http")
    link.rmdir()
    release(site, "1")
    site.install()
    site.drop_in("[Service]\nRestartSec=100ms\n")
    site.start()
    return site


def release(site: Site, version: str) -> None:
    """Deploy to a directory of its own, and have the link lead there."""
    link = site.directory("http")
    (link.parent / f"release-{version}").mkdir()
    new = link.with_name("new")
    new.symlink_to(f"release-{version}")
    new.rename(link)
    site.deploy(version)


def ask(site: Site, verb: str) -> Any:
    return json.loads(site.machine.run("sockmgr", verb, "--json", "-c", site.config).stdout)


def test_the_release_before_can_be_brought_back_by_the_next_manager_and_stays_after_another(
    site: Site,
) -> None:
    with site.load(LOAD) as load:
        answered(load.result, 20)
        release(site, "2")
        site.machine.systemctl("reload", SERVICE)
        killed(site)
        (verdict,) = ask(site, "rollback")
        assert (verdict["verdict"], verdict["rollback"]) == ("committed", 1)
        answered(load.result, 20)
        assert site.get()["version"] == "1"
        restarted(site)
        assert site.get()["version"] == "1"
        assert site.status()["services"]["http"]["rollback"] == 1
        site.machine.systemctl("reload", SERVICE)
        assert site.get()["version"] == "2"
        as_user = ("setpriv", "--reuid=sockmgr", "--regid=sockmgr", "--clear-groups")
        site.machine.run(*as_user, "sockmgr", "reload", "-c", site.config)
    assert not load.result.failed, load.result.failures()
    assert [(one["origin"], one["by"]) for one in ask(site, "history")] == [
        ("start", ""), ("reload", "systemd"), ("rollback", "root"), ("reload", "systemd"),
        ("reload", "sockmgr"),
    ]  # fmt: skip
    # Who stops a unit wants nothing of it to be left.
    site.machine.systemctl("stop", SERVICE)
    site.start()
    done = site.machine.run("sockmgr", "rollback", "-c", site.config, check=False)
    assert done.returncode == 1
    assert "nothing is known of what ran before" in done.stderr
