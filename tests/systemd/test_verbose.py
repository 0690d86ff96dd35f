"""systemd 258 and later show with `systemctl reload --verbose` what the reload itself says."""

from __future__ import annotations

import pytest

from tests.systemd.machine import Machine
from tests.systemd.mishaps import serving
from tests.systemd.site import SERVICE

KNOWS_VERBOSE = 258


def test_a_verbose_reload_shows_the_verdict_and_the_receipt(machine: Machine) -> None:
    if machine.version < KNOWS_VERBOSE:
        pytest.skip("this systemd has no --verbose")
    site = serving(machine)
    site.deploy("2")
    done = machine.systemctl("reload", "--verbose", SERVICE)
    shown = done.stdout + done.stderr
    assert "generation 2 is serving: 2/2 workers" in shown, shown
    assert "queue peak 0, 0 overflows, cut-over steered" in shown, shown
    site.deploy("3", fault="exits")
    done = machine.systemctl("reload", "--verbose", SERVICE, check=False)
    shown = done.stdout + done.stderr
    assert done.returncode == 1
    assert "generation 3 aborted" in shown, shown
    assert "cannot reach the database" in shown, shown
