"""`make test-deb`: the package is installed, used, upgraded under load, removed and purged.

In a Debian of its own, debootstrap's minimum and what the package needs, which its systemd boots.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sockmgr.torture.load.mode import Target
from tests.systemd.machine import ROOT, Machine
from tests.systemd.mishaps import LOAD, answered
from tests.systemd.site import LoadInside

LATER = "99.0"  # the version that is upgraded to
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# What a person has on such a machine to look at it with, beside systemd.
BASE = "systemd,systemd-sysv,dbus,man-db,ca-certificates"
UNIT, SOCKET = "sockmgr.service", "sockmgr.socket"
CONFIG = """\
[listen]
http = "tcp://127.0.0.1:8000"

[service.web]
command = ["/usr/bin/python3", "{directory}/worker.py"]
workers = 2
cwd = "{directory}"
"""


class Debian(Machine):
    """A machine whose files are a Debian's."""

    boot = Path(__file__).with_name("boot_root.sh")

    def __init__(self, root: Path) -> None:
        super().__init__("")
        self._root = root

    def _layout(self, terminal: str) -> Mapping[str, str]:
        return {**super()._layout(terminal), "ROOT": str(self._root)}


def main(suites: Sequence[str]) -> int:
    """Test the package on each of these releases of Debian; an assertion ends it."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("debootstrap", "lintian"))):
        print("this needs root, debootstrap and lintian", file=sys.stderr)
        return 1
    for suite in suites:
        root = debootstrap(suite)
        with tempfile.TemporaryDirectory(prefix="sockmgr-debs-") as made:
            now, later = package(root, Path(made, "now")), package(root, Path(made, "later"), LATER)
            tell(suite, "lintian", check(now))
            install_needed(root, now)
            with Debian(root) as machine:
                life(machine, now, later, suite)
    return 0


def tell(suite: str, *words: object) -> None:
    print(f"{suite}:", *words, flush=True)


# --- What is tested, and where -------------------------------------------------------------------


def debootstrap(suite: str) -> Path:
    """Return the directory of a Debian, made once."""
    root = ROOT / "build" / "debian" / suite
    if not (root / "etc" / "made").exists():
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include=python3,{BASE}", suite, root, MIRROR)
        (root / "etc" / "made").touch()
    return root


def package(root: Path, out: Path, version: str = "") -> Path:
    """Build the package for the Debian in `root`; with a `version`, of a tree that is of it."""
    tree = ROOT
    if version:
        tree = out / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests"))
        file = tree / "sockmgr" / "__init__.py"
        file.write_text(re.sub(r'"[0-9.]+"', f'"{version}"', file.read_text()))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=tree)
    (wheel,) = out.glob("*.whl")
    run(sys.executable, ROOT / "contrib/debian/make_deb.py", wheel, out, root, cwd=ROOT)
    (found,) = out.glob("*.deb")
    return found


def check(deb: Path) -> str:
    """Return what lintian says; it has to be nothing."""
    argv = ["lintian", "--allow-root", "--fail-on=error,warning", str(deb)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout or "has no complaint"


def install_needed(root: Path, deb: Path) -> None:
    """Install what the package depends on: the machine has no network to fetch it by."""
    depends = run("dpkg-deb", "--field", deb, "Depends")
    wanted = [name for each in depends.split(",") if (name := each.split()[0]) != "libc6"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for verb in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *wanted]):
        run("chroot", root, "apt-get", *verb, env=env)


def run(*argv: object, **options: Any) -> str:
    """Run a command to the end; return what it prints. Its failure is shown, and ends us."""
    command = list(map(str, argv))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **options)
    assert done.returncode == 0, (argv, done.stdout)
    return str(done.stdout)


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
    assert len(workers(machine)) == 2


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
