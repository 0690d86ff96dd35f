"""What `make test-systemd-matrix` takes from Debian's archive. Nothing is fetched."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.archive import MIRROR, Archive, ArchiveError, Offer, choose, mirror
from tests.systemd.layers import installed, layer, unpack

OFFERS = [
    Offer(version="254.26-1~bpo12+1", release="bookworm-backports"),
    Offer(version="257.13-1~deb13u1", release="trixie"),
    Offer(version="262-1", release="forky"),
    Offer(version="262.1-1", release="sid"),
]
POLICY = """Package files:
 100 /var/lib/dpkg/status
     release a=now
 500 https://pkgs.example.net/stable/debian bookworm/main amd64 Packages
     release o=Example,a=bookworm,n=bookworm,l=Example,c=main,b=amd64
     origin pkgs.example.net
 500 http://security.example.org/debian-security bookworm-security/main amd64 Packages
     release v=12,o=Debian,a=oldstable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64
     origin security.example.org
 500 http://mirror.example.org/debian bookworm/main amd64 Packages
     release v=12.12,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64
     origin mirror.example.org
"""

debian = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="this is no Debian")


def package(directory: Path, name: str, version: str, file: str) -> Path:
    """Build a package of one file."""
    tree = directory / name
    for path, text in (
        ("DEBIAN/control", f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
                           "Maintainer: nobody <nobody@example.org>\nDescription: a test\n"),
        (file, version),
    ):  # fmt: skip
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    target = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--build", tree, target], check=True, capture_output=True)
    return target


@pytest.mark.parametrize(
    ("wanted", "version"),
    [(254, "254.26-1~bpo12+1"), (255, "257.13-1~deb13u1"), (257, "257.13-1~deb13u1"),
     (262, "262.1-1")],
)  # fmt: skip
def test_the_version_wanted_is_chosen_at_its_newest_and_else_the_next_later_one(
    wanted: int, version: str
) -> None:
    assert choose(wanted, OFFERS).version == version


def test_a_version_that_is_not_out_yet_is_an_error_that_tells_what_there_is() -> None:
    with pytest.raises(ArchiveError, match=r"neither systemd 263 .* 262\.1-1 \(sid\)"):
        choose(263, OFFERS)


def test_the_archive_is_the_one_that_apt_takes_debian_itself_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(MIRROR, raising=False)
    assert mirror(POLICY) == "http://mirror.example.org/debian"
    assert mirror("Package files:\n") == "http://deb.debian.org/debian"
    monkeypatch.setenv(MIRROR, "http://other.example.org/debian")
    assert mirror(POLICY) == "http://other.example.org/debian"


@debian
def test_a_layer_has_systemd_and_only_what_is_newer_than_ours(tmp_path: Path) -> None:
    packages = [
        package(tmp_path, "systemd", "254-1", "lib/systemd/systemd"),
        package(tmp_path, "libnew", "2-1", "usr/lib/libnew.so"),
        package(tmp_path, "libolder", "1-1", "usr/lib/libolder.so"),
        package(tmp_path, "librenamed1t64", "1-1", "usr/lib/librenamed.so"),
        package(tmp_path, "libnewer", "1:1-1", "usr/lib/libnewer.so"),
    ]
    have = {"systemd": "257-1", "libolder": "1-1", "librenamed1": "3-1", "libnewer": "9-1"}
    made = tmp_path / "layer"
    unpack(packages, made, have)
    found = sorted(str(path.relative_to(made)) for path in (made / "usr").rglob("*.*"))
    assert found == ["usr/lib/libnew.so", "usr/lib/libnewer.so"]
    assert (made / "usr/lib/systemd/systemd").read_text() == "254-1"


@debian
def test_a_layer_that_is_there_is_used_without_asking_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR, "file:/nowhere")
    (tmp_path / "254").mkdir()
    with Archive() as archive:
        (tmp_path / "254" / "made").write_text(f"254.26-1, for libc6 {installed().get('libc6')}\n")
        assert layer(254, archive, tmp_path) == tmp_path / "254"
        (tmp_path / "254" / "made").write_text("254.26-1, for libc6 1.0-1\n")
        with pytest.raises(ArchiveError, match="file:/nowhere has none"):
            layer(254, archive, tmp_path)
