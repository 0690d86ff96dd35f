"""Debians in directories, made by debootstrap and kept, and packages that are built for them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.systemd.machine import ROOT, Machine

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# What a person has on such a machine to look at it with, beside systemd.
BASE = "python3,systemd,systemd-sysv,dbus,man-db,ca-certificates"


class Debian(Machine):
    """A machine whose files are a Debian's."""

    boot = Path(__file__).with_name("boot_root.sh")

    def __init__(self, root: Path) -> None:
        super().__init__("")
        self._root = root

    def _layout(self, terminal: str) -> Mapping[str, str]:
        return {**super()._layout(terminal), "ROOT": str(self._root)}


def debian(suite: str, *more: str) -> Path:
    """Return the directory of a Debian with these packages, and what they need; made once."""
    root = ROOT / "build" / "debian" / "+".join([suite, *more])
    made = root / "etc" / "made"
    if not made.exists():
        shutil.rmtree(root, ignore_errors=True)
        if more:
            run("cp", "-a", debian(suite), root)
            made.unlink()
            install(root, *more)
        else:
            run("debootstrap", "--variant=minbase", f"--include={BASE}", suite, root, MIRROR)
        made.touch()
    return root


def install(root: Path, *packages: str) -> None:
    """Install packages of the distribution in a directory: a machine has no network for that."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for verb in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
        run("chroot", root, "apt-get", *verb, env=env)


def needed(deb: Path) -> Sequence[str]:
    """Return the packages of the distribution that a package depends on."""
    depends = run("dpkg-deb", "--field", deb, "Depends")
    return [name for each in depends.split(",") if (name := each.split()[0]) != "libc6"]


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


def run(*argv: object, **options: Any) -> str:
    """Run a command to the end; return what it prints. Its failure is shown, and ends us."""
    command = list(map(str, argv))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **options)
    assert done.returncode == 0, (argv, done.stdout)
    return str(done.stdout)
