"""Two services that go together under systemd, by one `systemctl reload`: all are new or none."""

from __future__ import annotations

from tests.systemd.machine import Machine
from tests.systemd.mishaps import killed
from tests.systemd.site import SERVICE, Site

SOON = "[Service]\nRestartSec=100ms\n"
PORTS = {"http": 8000, "admin": 8001}


def answers(site: Site) -> dict[str, str]:
    return {name: site.get(port)["version"] for name, port in PORTS.items()}


def test_all_are_new_or_none_is_and_a_manager_that_dies_changes_nothing(machine: Machine) -> None:
    listen = {name: f"tcp://127.0.0.1:{port}" for name, port in PORTS.items()}
    site = Site(machine, listen, more="rollout = { max_failed_starts = 1 }")
    site.write(f"{site.text}\n[rollout]\ntogether = true\n")
    for name in PORTS:
        site.deploy("1", service=name)
    site.install()
    site.drop_in(SOON)
    site.start()
    with site.load("short:rate=60") as load, site.load("short:rate=60", port=8001) as other:
        for name, fault in (("http", "none"), ("admin", "exits")):
            site.deploy("2", service=name, fault=fault)
        assert machine.systemctl("reload", SERVICE, check=False).returncode != 0
        assert answers(site) == {"http": "1", "admin": "1"}
        assert "http was taken back" not in site.journal
        assert "admin was taken back, and they go together" in site.journal
        site.deploy("3", service="http")
        site.deploy("3", service="admin")
        machine.systemctl("reload", SERVICE)
        killed(site)
        assert answers(site) == {"http": "3", "admin": "3"}
    for each in (load, other):
        assert not each.result.failed, each.result.failures()
