"""What a manager and its workers write to the journal of a real systemd, and who can read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sockmgr.core.events import MESSAGE_IDS
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE, Site

HTTP = {"http": "tcp://127.0.0.1:8000"}
CATALOG = "/srv/checkout/contrib/systemd/sockmgr.catalog"


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site that serves version 1."""
    site = Site(machine, HTTP)
    site.install()
    site.start()
    return site


def entries(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    machine.run("journalctl", "--sync")
    found = machine.run("journalctl", "-q", "--all", "--output=json", *matches).stdout
    return [json.loads(line) for line in found.splitlines()]


# --- Records -------------------------------------------------------------------------------------


def test_a_kind_of_event_is_found_by_its_id_with_service_generation_and_worker(site: Site) -> None:
    found = entries(site.machine, f"MESSAGE_ID={MESSAGE_IDS['worker ready']}")
    assert {entry["SOCKMGR_WORKER"] for entry in found} == {"http@1.1", "http@1.2"}
    assert {
        (entry["SOCKMGR_SERVICE"], entry["SOCKMGR_GENERATION"], entry["SOCKMGR_EVENT"],
         entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["_SYSTEMD_UNIT"])
        for entry in found
    } == {("http", "1", "worker-ready", "6", "sockmgr", SERVICE)}  # fmt: skip


def test_a_reload_that_is_aborted_is_an_error_with_its_reason(site: Site) -> None:
    site.deploy("2", fault="exits")
    site.machine.systemctl("reload", SERVICE, check=False)
    (entry,) = entries(site.machine, "SOCKMGR_EVENT=aborted", "SOCKMGR_SERVICE=http", "-p", "err")
    assert entry["SOCKMGR_GENERATION"] == "2"
    assert "exited with status" in entry["SOCKMGR_REASON"]


def test_journalctl_explains_a_record_with_the_catalog(site: Site) -> None:
    # Over what is the host's, and is not to be written.
    site.machine.run("mount", "--bind", CATALOG, "/usr/lib/systemd/catalog/systemd.catalog")
    site.machine.run("journalctl", "--update-catalog")
    site.machine.run("journalctl", "--sync")
    told = site.machine.run("journalctl", "-x", "SOCKMGR_EVENT=serving").stdout
    assert "Subject: Service http serves" in told
    assert "All wanted workers of its first generation, 1, are ready." in told


def test_a_journald_that_hangs_holds_up_neither_a_reload_nor_a_request(site: Site) -> None:
    site.machine.systemctl("kill", "--signal=STOP", "systemd-journald.service")
    for version in ("2", "3"):
        site.deploy(version)
        site.machine.systemctl("reload", SERVICE)
        assert site.get()["version"] == version
    site.machine.systemctl("kill", "--signal=CONT", "systemd-journald.service")
    found = entries(site.machine, "SOCKMGR_EVENT=committed")
    assert [entry["SOCKMGR_GENERATION"] for entry in found] == ["2", "3"]
