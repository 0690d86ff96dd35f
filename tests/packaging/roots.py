"""Debians in directories, made by debootstrap and kept, and packages that are built for them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.systemd.machine import ROOT, Machine

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# What a person has on such a machine to look at it with, beside systemd; and what Ansible asks for.
BASE = "python3,python3-apt,systemd,systemd-sysv,dbus,man-db,ca-certificates,openssh-server"


class Debian(Machine):
    """A machine whose files are a Debian's."""

    boot = Path(__file__).with_name("boot_root.sh")

    def __init__(self, root: Path) -> None:
        super().__init__("")
        self._root = root

    def _layout(self, terminal: str) -> Mapping[str, str]:
        return {**super()._layout(terminal), "ROOT": str(self._root)}


def debootstrap(suite: str) -> Path:
    """Return the directory of a Debian, made once."""
    root = ROOT / "build" / "debian" / suite
    made = root / "etc" / "made"
    if not made.exists() or made.read_text() != BASE:
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={BASE}", suite, root, MIRROR)
        made.write_text(BASE)
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
