"""Make a .deb of a wheel: `make deb`, or `make deb ROOT=DIR` for the Debian in that directory.

The program is in a virtual environment of its own, /usr/lib/sockmgr, which sees the distribution's
packages. Those that are new enough the package depends on; the rest is in that environment, too,
where no other program looks. The maintainer is whoever builds: DEBFULLNAME, DEBEMAIL.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.message import Message
from email.parser import Parser
from pathlib import Path

HERE = Path(__file__).parent
CHANGELOG = HERE.parents[1] / "CHANGELOG.md"
HOME = "usr/lib/sockmgr"
# What a bundled package needs besides.
NEEDED = {"watchfiles": ("python3-anyio",)}
# Not the distribution's own script: processes that the manager starts run by the same Python.
SCRIPT = """\
#!/usr/lib/sockmgr/bin/python3 -sP
from sockmgr.__main__ import main

main()
"""
VENV = """\
home = /usr/bin
include-system-site-packages = true
"""


class Target:
    """The Debian that the package is for: this one, or the one in a directory."""

    def __init__(self, root: str) -> None:
        self._before = ["chroot", root] if root else []
        told = self.run("/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])")
        self.major, self.minor = map(int, told.split())
        self.packages = f"{HOME}/lib/python{self.major}.{self.minor}/site-packages"
        self.release = self.run("sh", "-c", ". /etc/os-release && echo ${VERSION_ID:-0}")

    def run(self, *argv: str) -> str:
        """Run a command there; return what it prints."""
        words = [*self._before, *argv]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def offers(self, package: str, least: str) -> bool:
        """Return whether there is a package of this version or a later one."""
        found = re.search(r"Candidate: (\d\S*)", self.run("apt-cache", "policy", package))
        compare = ["dpkg", "--compare-versions", found[1] if found else "0", "ge", least]
        return subprocess.run(compare, check=False).returncode == 0


# --- What is in it -------------------------------------------------------------------------------


def place(name: str, packages: str) -> str | None:
    """Return where a file of the wheel belongs, None for what only pip needs."""
    if "/data/share/" not in name:
        return None if name.endswith(("RECORD", "LICENSE", "WHEEL")) else f"{packages}/{name}"
    shared = name.partition("/data/share/")[2]
    moved = {
        "zsh/site-functions/": "usr/share/zsh/vendor-completions/",
        "sockmgr/systemd/sysusers.d/": "usr/lib/sysusers.d/",
        "sockmgr/systemd/drop-ins/": "usr/share/doc/sockmgr/examples/",
        "sockmgr/systemd/sockmgr.catalog": "usr/lib/systemd/catalog/sockmgr.catalog",
        "sockmgr/systemd/": "usr/lib/systemd/system/",
    }
    for old, new in moved.items():
        if shared.startswith(old):
            return new + shared.removeprefix(old)
    return f"usr/share/{shared}"


def unpack(wheel: Path, target: Target, stage: Path) -> None:
    """Lay the files of the wheel out as Debian has them."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if where := place(name, target.packages):
                write(stage / where, archive.read(name))
    for page in stage.glob("usr/share/man/man?/*"):
        write(page.with_name(f"{page.name}.gz"), gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()


def bundle(wanted: Sequence[str], target: Target, stage: Path) -> None:
    """Install wheels for the target's Python into its environment."""
    directory, version = stage / target.packages, f"{target.major}.{target.minor}"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-compile", "--only-binary=:all:", f"--python-version={version}",
         "--platform=manylinux_2_17_x86_64", "--platform=manylinux2014_x86_64",
         f"--target={directory}", *wanted],
        check=True,
    )  # fmt: skip
    shutil.rmtree(directory / "bin", ignore_errors=True)
    libraries = map(str, directory.rglob("*.so"))
    subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


# --- What it needs -------------------------------------------------------------------------------


def dependencies(about: Message, target: Target) -> tuple[list[str], list[str]]:
    """Return what the package depends on, and what has to be bundled, as pip has it."""
    this, next_one = (f"{target.major}.{minor}" for minor in (target.minor, target.minor + 1))
    depends = [f"python3 (>= {this})", f"python3 (<< {next_one})", "python3-systemd", "systemd"]
    missing = []
    for line in about.get_all("Requires-Dist", ()):
        found = re.fullmatch(r"([a-z-]+)>=([0-9.]+)", line)
        if found is None:  # of an extra
            continue
        package = f"python3-{found[1]}"
        if target.offers(package, found[2]):
            depends.append(f"{package} (>= {found[2]})")
        else:
            missing.append(line)
            depends += NEEDED.get(found[1], ())
    if missing:
        depends += ["libc6 (>= 2.17)", "libgcc-s1"]
    return depends, missing


def control(version: str, depends: Sequence[str], architecture: str) -> str:
    """Return the control file."""
    return f"""\
Package: sockmgr
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer()}
Section: admin
Priority: optional
Depends: {", ".join(depends)}
Description: zero-downtime, socket-activation process manager
 sockmgr holds listening sockets and runs the servers behind them. A reload
 starts the new code beside the old, waits until it accepts connections, moves
 new connections over in one step, and only then lets the old workers finish.
 If the new code fails, nothing changes.
 .
 It runs uvicorn, Gunicorn, uWSGI, granian, hypercorn, Node, and any program
 that takes a socket as a descriptor.
"""


def maintainer() -> str:
    """Return who builds the package."""
    name = os.environ.get("DEBFULLNAME") or git("user.name")
    address = os.environ.get("DEBEMAIL") or git("user.email")
    if not (name and address):
        sys.exit("a package has a maintainer: set DEBFULLNAME and DEBEMAIL")
    return f"{name} <{address}>"


def git(key: str) -> str:
    """Return a setting of git, or ""."""
    done = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False)
    return done.stdout.strip()


# --- The package ---------------------------------------------------------------------------------


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file, and its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def sums(stage: Path) -> Iterator[str]:
    """Yield the lines of md5sums."""
    for path in sorted(stage.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            yield f"{digest}  {path.relative_to(stage)}\n"


def main(wheel: Path, out: Path, root: str = "") -> None:
    """Make the package in the directory `out`."""
    target = Target(root)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(name).decode())
    version = f"{about['Version']}+deb{target.release}"
    released = re.search(r"^## \[[0-9.]+\] - (\S+)$", CHANGELOG.read_text(), re.MULTILINE)
    date = datetime.fromisoformat(released[1] if released else "1970-01-01").replace(tzinfo=UTC)
    depends, missing = dependencies(about, target)
    architecture = "amd64" if missing else "all"
    with tempfile.TemporaryDirectory(prefix="sockmgr-deb-") as directory:
        stage = Path(directory, "stage")
        unpack(wheel, target, stage)
        if missing:
            bundle(missing, target, stage)
        write(stage / HOME / "bin/sockmgr", SCRIPT.encode(), 0o755)
        write(stage / HOME / "pyvenv.cfg", VENV.encode())
        (stage / HOME / "bin/python3").symlink_to("../../../bin/python3")
        (stage / "usr/bin").mkdir()
        (stage / "usr/bin/sockmgr").symlink_to("../lib/sockmgr/bin/sockmgr")
        (stage / "etc/sockmgr").mkdir(parents=True)
        documents = stage / "usr/share/doc/sockmgr"
        write(documents / "copyright", (HERE / "copyright").read_bytes())
        text = (
            f"sockmgr ({version}) stable; urgency=medium\n\n"
            "  * As the project's CHANGELOG.md says.\n\n"
            f" -- {maintainer()}  {date:%a, %d %b %Y %H:%M:%S %z}\n"
        )
        overrides = (HERE / "lintian-overrides").read_bytes()
        write(stage / "usr/share/lintian/overrides/sockmgr", overrides)
        write(documents / "changelog.gz", gzip.compress(text.encode(), mtime=0))
        listed = "".join(sums(stage))
        write(stage / "DEBIAN/md5sums", listed.encode())
        write(stage / "DEBIAN/control", control(version, depends, architecture).encode())
        for script in ("postinst", "prerm", "postrm"):
            write(stage / "DEBIAN" / script, (HERE / script).read_bytes(), 0o755)
        for path in (stage, *stage.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        out.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", str(stage), str(out)],
            check=True, env=os.environ | {"SOURCE_DATE_EPOCH": f"{date.timestamp():.0f}"},
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
