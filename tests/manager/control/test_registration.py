"""The link by which systemd's varlinkctl finds a manager: there while it is, and nobody else's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.manager.control import registration
from sockmgr.manager.control.registration import Registration


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # As short as the one of systemd: the address of a socket has 107 bytes at most, unix(7).
    with tempfile.TemporaryDirectory() as path:
        monkeypatch.setattr(registration, "REGISTRY", Path(path))
        yield Path(path)


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("sockmgr", "io.sockmgr.Manager"),
        ("shop", "io.sockmgr.Manager.shop"),
        ("my_shop-2.eu", "io.sockmgr.Manager.my-shop-2.eu"),
    ],
)
def test_a_manager_is_registered_under_a_name_that_is_one_of_interfaces(
    registry: Path, tmp_path: Path, name: str, link: str
) -> None:
    one = Registration(tmp_path / "a.sock")
    one.show(name)
    assert {path.name: path.readlink() for path in registry.iterdir()} == {
        link: tmp_path / "a.sock"
    }
    one.withdraw()
    assert not list(registry.iterdir())


def test_one_whose_name_can_be_none_of_interfaces_is_left_out(
    registry: Path, tmp_path: Path
) -> None:
    Registration(tmp_path / "a.sock").show("shop.")
    assert not list(registry.iterdir())


def test_the_link_of_a_manager_that_was_killed_is_taken_over_and_that_of_another_stays(
    registry: Path, tmp_path: Path
) -> None:
    Registration(tmp_path / "killed.sock").show("shop")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        there = Registration(tmp_path / "other.sock")
        there.show("shop")
        late = Registration(tmp_path / "late.sock")
        late.show("shop")
        late.withdraw()
        (link,) = registry.iterdir()
        assert link.readlink() == tmp_path / "other.sock"
    late.show("shop")
    there.withdraw()
    assert link.readlink() == tmp_path / "late.sock"


def test_a_link_to_itself_is_replaced(registry: Path, tmp_path: Path) -> None:
    link = registry / "io.sockmgr.Manager"
    link.symlink_to(link)
    Registration(tmp_path / "a.sock").show("sockmgr")
    assert link.readlink() == tmp_path / "a.sock"


def test_without_a_registry_there_is_none_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "REGISTRY", tmp_path / "varlink")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    Registration(tmp_path / "a.sock").show("shop")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_a_user_who_may_not_write_to_the_registry_has_one_of_its_own() -> None:
    program = """
import os, sys
from pathlib import Path
from sockmgr.manager.control import registration
registration.REGISTRY = Path(sys.argv[1], "varlink")
os.setgroups([]), os.setgid(65534), os.setuid(65534)
registration.Registration(Path("/run/a.sock")).show("sockmgr")
"""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        registry, own = Path(directory, "varlink"), Path(directory, "run")
        Path(directory).chmod(0o755)
        registry.mkdir()
        own.mkdir()
        os.chown(own, 65534, 65534)
        subprocess.run(
            [sys.executable, "-c", program, directory],
            env=os.environ | {"XDG_RUNTIME_DIR": str(own)}, check=True,
        )  # fmt: skip
        assert not list(registry.iterdir())
        link = own / "varlink/registry/io.sockmgr.Manager"
        assert link.readlink() == Path("/run/a.sock")
