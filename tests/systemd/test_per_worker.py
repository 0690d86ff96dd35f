"""A queue for each worker where the manager has `User=`: with no capability, and with CAP_BPF."""

from __future__ import annotations

import pytest

from tests.systemd.machine import Machine
from tests.systemd.mishaps import killed
from tests.systemd.round_robin import DROP_IN, choice
from tests.systemd.site import SERVICE, Site

SOON = "[Service]\nRestartSec=100ms\n"


def serving(site: Site) -> set[int]:
    """Return who does not drain: those of before may, still."""
    return {pid for pid, state in site.workers().items() if state == "ready"}


@pytest.mark.parametrize(
    ("drop_in", "chosen"),
    [(SOON, "random (classic BPF)"), (DROP_IN.read_text() + SOON, "round robin (eBPF)")],
    ids=["unprivileged", "CAP_BPF"],
)
def test_reloads_and_the_death_of_the_manager_lose_nothing(
    machine: Machine, drop_in: str, chosen: str
) -> None:
    site = Site(machine, {"http": "tcp://127.0.0.1:8000"}, more='accept = "per-worker"')
    site.deploy("1")
    site.install()
    site.drop_in(drop_in)
    site.start()
    with site.load("short:rate=100") as load:
        for version in ("2", "3"):
            site.deploy(version)
            machine.systemctl("reload", SERVICE)
        before = serving(site)
        killed(site)
        assert serving(site) == before
        assert choice(site) == chosen
    assert not load.result.failed, load.result.failures()
    ready = [w for w in site.status()["services"]["http"]["workers"] if w["state"] == "ready"]
    assert len({worker["lease"] for worker in ready}) == 2
