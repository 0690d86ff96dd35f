"""A manager with the drop-in for round robin, and how it chooses."""

from __future__ import annotations

from tests.e2e.apps import ROOT
from tests.systemd.site import Site

DROP_IN = ROOT / "contrib" / "systemd" / "drop-ins" / "round-robin.conf"


def choice(site: Site) -> str:
    found: str = site.status()["listeners"]["http"]["choice"]
    return found
