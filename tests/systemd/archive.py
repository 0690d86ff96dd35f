"""Debian's archive: which systemds it has, and their packages with all that they depend on.

Asks with apt, with the machine's settings for the network and lists of its own. Installs nothing,
and what it fetched is gone when it is closed.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MIRROR = "DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# From old to new: the release that has it, and the suites that its dependencies come from.
RELEASES = {
    "bookworm-backports": ("bookworm", "bookworm-backports"),
    "trixie": ("trixie",),
    "forky": ("forky",),
    "sid": ("sid",),
}
# Later systemds load libseccomp only if it is there; without it SystemCallFilter= does nothing.
PACKAGES = ("systemd", "libudev1", "libseccomp2")


class ArchiveError(Exception):
    """Something cannot be had; says what, and what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A systemd that the archive has."""

    version: str
    release: str

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


class Archive:
    """The archive that this machine uses, or the one in DEBIAN_MIRROR. Asked when first needed."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="sockmgr-apt-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._home.cleanup()

    @functools.cached_property
    def offers(self) -> Sequence[Offer]:
        """What there is, from old to new; a release that cannot be read is told and left out."""
        address = mirror(run("apt-cache", "policy"))
        found: list[Offer] = []
        for release in RELEASES:
            print(f"reading {address} {release}", flush=True)
            try:
                found += self._read(release, address)
            except ArchiveError as error:
                print(error, flush=True)
        if not found:
            raise ArchiveError(f"{address} has none of {', '.join(RELEASES)}; set {MIRROR}=URL")
        return found

    def fetch(self, offer: Offer) -> Sequence[Path]:
        """Return the packages of this systemd and of what it needs where nothing is installed."""
        print(f"fetching systemd {offer.version} from {offer.release}", flush=True)
        self._apt(
            offer.release, "apt-get", "-qq", "--yes", "--download-only",
            f"--target-release={offer.release}", "--no-install-recommends", "install", *PACKAGES,
        )  # fmt: skip
        return sorted((self._directory(offer.release) / "archives").glob("*.deb"))

    def _read(self, release: str, address: str) -> Iterator[Offer]:
        self._set_up(release, address)
        self._apt(release, "apt-get", "-qq", "update")
        for line in self._apt(release, "apt-cache", "madison", "systemd").splitlines():
            _, version, where = (part.strip() for part in line.split("|"))
            if f" {release}/" in where:
                yield Offer(version=version, release=release)

    def _set_up(self, release: str, address: str) -> None:
        directory = self._directory(release)
        for part in ("lists/partial", "archives/partial"):
            (directory / part).mkdir(parents=True)
        (directory / "status").touch()  # nothing is installed
        (directory / "sources.list").write_text(
            "".join(f"deb [signed-by={KEYRING}] {address} {it} main\n" for it in RELEASES[release])
        )
        # Proxies and the like are the machine's; its hooks and pins are not for us.
        dump = run("apt-config", "dump").splitlines()
        ours = [line for line in dump if re.match(r"Acquire(?!::(IndexTargets|Languages))", line)]
        ours += [
            'Dir::Etc::parts "/dev/null";', 'Dir::Etc::main "/dev/null";',
            'Dir::Etc::sourceparts "/dev/null";', 'Dir::Etc::preferencesparts "/dev/null";',
            'Dir::Etc::preferences "/dev/null";', 'Acquire::Languages "none";',
            f'Dir::Etc::sourcelist "{directory}/sources.list";', f'Dir::Cache "{directory}";',
            f'Dir::State "{directory}";', f'Dir::State::status "{directory}/status";',
            'Acquire::GzipIndexes "true";', 'APT::Sandbox::User "root";',
            'APT::Update::Error-Mode "any";',
        ]  # fmt: skip
        (directory / "apt.conf").write_text("\n".join(ours) + "\n")

    def _apt(self, release: str, *argv: str) -> str:
        config = self._directory(release) / "apt.conf"
        return run(*argv, env=os.environ | {"APT_CONFIG": str(config)})

    def _directory(self, release: str) -> Path:
        return Path(self._home.name, release)


def choose(wanted: int, offers: Sequence[Offer]) -> Offer:
    """Return the newest package of the version wanted, else of the first version after it."""
    later = [offer.major for offer in offers if offer.major >= wanted]
    if not later:
        found = ", ".join(f"{offer.version} ({offer.release})" for offer in offers)
        raise ArchiveError(f"the archive has neither systemd {wanted} nor a later one, but {found}")
    return next(offer for offer in reversed(offers) if offer.major == min(later))


def mirror(policy: str) -> str:
    """Return the archive's address: from the environment, or from what `apt-cache policy` says."""
    if given := os.environ.get(MIRROR):
        return given
    found = re.search(r"^ *\d+ (\S+) .*\n +release .*\bo=Debian,.*\bl=Debian,", policy, re.M)
    return found[1] if found else "http://deb.debian.org/debian"


def run(*argv: str, env: Mapping[str, str] | None = None) -> str:
    """Return what a command prints. Raises ArchiveError."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise ArchiveError(f"{argv[0]}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout
