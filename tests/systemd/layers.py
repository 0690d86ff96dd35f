"""Other systemds, each unpacked below .cache/systemd, to be laid over the /usr of a machine.

Owns that directory. What is there already is used as it is, without a network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.systemd.archive import KEYRING, Archive, ArchiveError, choose, run
from tests.systemd.machine import ROOT

CACHE = ROOT / ".cache" / "systemd"
_NEEDED = {"apt-get": "apt", "dpkg-deb": "dpkg", "dpkg-query": "dpkg", "tar": "tar"}
# Links in a merged /usr, and directories in packages from before that (usrmerge).
_MERGED = ("bin", "sbin", "lib", "lib64")


def layer(wanted: int, archive: Archive, cache: Path = CACHE) -> Path:
    """Return the layer of this systemd, or of the next later one there is; make it if need be.

    Raises ArchiveError. The file `made` in it says what it is.
    """
    have = installed()
    whose = f"for libc6 {have.get('libc6')}"
    path = cache / str(wanted)
    if path.exists() and whose in (path / "made").read_text():
        return path
    offer = choose(wanted, archive.offers)
    packages = archive.fetch(offer)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{wanted}-", dir=cache) as directory:
        fresh = Path(directory, "layer")
        unpack(packages, fresh, have)
        (fresh / "made").write_text(f"{offer.version} from {offer.release}, {whose}\n")
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)  # whole or not at all
    return path


def missing() -> str:
    """Return what a layer needs and this machine lacks, or ""."""
    if os.geteuid() != 0:
        return "only root can unpack and boot a systemd"
    packages = {package for name, package in _NEEDED.items() if shutil.which(name) is None}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    return f"these Debian packages are missing: {', '.join(sorted(packages))}" if packages else ""


def unpack(packages: Sequence[Path], to: Path, have: Mapping[str, str]) -> None:
    """Unpack systemd, and of the rest what is newer than what we `have`, all of it below `to`/usr.

    An older library over ours would break our own programs.
    """
    for name in _MERGED:
        (to / "usr" / name).mkdir(parents=True)
        (to / name).symlink_to(f"usr/{name}")
    for package in filter(lambda each: _belongs(each, have), packages):
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
        ) as reader:
            command = ["tar", "-x", "--keep-directory-symlink", "-C", str(to)]
            code = subprocess.run(command, stdin=reader.stdout, check=False).returncode
        if code or reader.returncode:
            raise ArchiveError(f"{package.name} cannot be unpacked: is the disk full?")


def installed() -> Mapping[str, str]:
    """Return the versions of the packages that are installed."""
    listed = run("dpkg-query", "--show", "--showformat=${Package} ${Version}\\n")
    return dict(line.split(" ", 1) for line in listed.splitlines())


def _belongs(package: Path, have: Mapping[str, str]) -> bool:
    fields = run("dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(package))
    name, version = fields.split(" ")
    if name.startswith(("systemd", "libsystemd", "libudev")):
        return True
    # Since times have 64 bits some packages have other names; their files do not.
    plain = name.removesuffix("t64")
    ours = have.get(name) or have.get(plain) or have.get(f"{plain}t64")
    if not ours:
        return True
    newer = subprocess.run(["dpkg", "--compare-versions", version, "gt", ours], check=False)
    return newer.returncode == 0
