"""`make test-deb`: the package is installed, used, upgraded under load, removed and purged.

In a Debian of its own, debootstrap's minimum and what the package needs, which its systemd boots.
Then docs/start.md is run there by what each way of installing has brought.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers.children import wait_until
from tests.helpers.load import Target
from tests.packaging.roots import Debian, debian, install, needed, package
from tests.packaging.ways import ways
from tests.systemd.machine import ROOT, Machine
from tests.systemd.mishaps import LOAD, answered
from tests.systemd.site import LoadInside

LATER = "99.0"  # the version that is upgraded to
UNIT, SOCKET = "sockmgr.service", "sockmgr.socket"
CONFIG = """\
[listen]
http = "tcp://127.0.0.1:8000"

[service.web]
command = ["/usr/bin/python3", "{directory}/worker.py"]
workers = 2
cwd = "{directory}"
"""


def main(suites: Sequence[str]) -> int:
    """Test the package on each of these releases of Debian; an assertion ends it."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("debootstrap", "lintian"))):
        print("this needs root, debootstrap and lintian", file=sys.stderr)
        return 1
    for suite in suites:
        root = debian(suite)
        with tempfile.TemporaryDirectory(prefix="sockmgr-debs-") as made:
            now, later = package(root, Path(made, "now")), package(root, Path(made, "later"), LATER)
            tell(suite, "lintian", check(now))
            install(root, *needed(now))
            with Debian(root) as machine:
                life(machine, now, later, suite)
            for name, told in ways(suite, now, Path(made, "wheels")):
                tell(suite, f"{name}:", told)
    return 0


def tell(suite: str, *words: object) -> None:
    print(f"{suite}:", *words, flush=True)


def check(deb: Path) -> str:
    """Return what lintian says; it has to be nothing."""
    argv = ["lintian", "--allow-root", "--fail-on=error,warning", str(deb)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout or "has no complaint"


# --- The life of a package -----------------------------------------------------------------------


def life(machine: Machine, now: Path, later: Path, suite: str) -> None:
    """Install, use, upgrade, remove and purge it in a machine that runs."""
    now, later = (Path(shutil.copy(each, machine.shared)) for each in (now, later))
    machine.run("dpkg", "-i", str(now), timeout=300)
    brought(machine)
    tell(suite, machine.run("sockmgr", "--version").stdout.strip(), "is installed")
    used(machine)
    tell(suite, "serves, and reloads")
    tell(suite, upgraded(machine, later))
    machine.run("dpkg", "-r", "sockmgr", timeout=300)
    states = machine.run("systemctl", "is-active", UNIT, SOCKET, check=False).stdout.split()
    assert states == ["inactive", "inactive"], states
    machine.run("test", "-f", "/etc/sockmgr/sockmgr.toml")
    machine.run("dpkg", "-P", "sockmgr", timeout=300)
    where = ["/usr", "/etc/systemd", "/var/lib/dpkg", "/var/lib/systemd"]
    left = machine.run("find", *where, "-name", "*sockmgr*", "-not", "-path", "*/list/*").stdout
    assert not left, left
    tell(suite, "removed and purged; the config of the administrator is there")


def brought(machine: Machine) -> None:
    """Look for what comes with the program, where this Debian looks for it."""
    machine.run("man", "-w", "sockmgr")
    machine.run("man", "-w", "5", "sockmgr.toml")
    machine.run("getent", "passwd", "sockmgr")
    assert "sockmgr@.service" in machine.systemctl("list-unit-files", "sockmgr*").stdout
    catalog = machine.run("journalctl", "--list-catalog").stdout
    assert "c6a483140bb945989e5218655e0a7d54" in catalog
    script = "/usr/share/bash-completion/completions/sockmgr"
    machine.run("bash", "-c", f"source {script} && complete -p sockmgr")


def used(machine: Machine) -> None:
    """Serve the config that the package's own units are for."""
    directory = Path(machine.shared, "web")
    directory.mkdir()
    shutil.copy(ROOT / "tests/e2e/programs/worker.py", directory)
    (directory / "version").write_text("1")
    machine.write("/etc/sockmgr/sockmgr.toml", CONFIG.format(directory=directory))
    machine.systemctl("enable", "--now", SOCKET, UNIT)
    machine.systemctl("reload", UNIT)
    wait_until(lambda: len(workers(machine)) == 2, what="the end of those who were replaced")


def status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("sockmgr", "status", "--json").stdout)
    return found


def workers(machine: Machine) -> set[int]:
    return {worker["pid"] for worker in status(machine)["services"]["web"]["workers"]}


def upgraded(machine: Machine, deb: Path) -> str:
    """Upgrade the package under load; return how many requests there were, none of which failed."""
    before, pid = workers(machine), machine.property(UNIT, "MainPID")
    target = Target.at_url("http://127.0.0.1:8000")
    with LoadInside(machine.pid, target, [LOAD]) as load:
        answered(load.result, 50)
        machine.run("dpkg", "-i", str(deb), timeout=300)
        answered(load.result, 50)
    assert not load.result.failed, load.result
    assert status(machine)["manager"]["version"] == LATER
    assert machine.property(UNIT, "MainPID") == pid
    assert workers(machine) == before
    return f"{len(load.result.rows)} requests in an upgrade, 0 failed; same manager, same workers"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
