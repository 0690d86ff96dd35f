"""What only we and root can have put where a manager reads what it is to run."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sockmgr.kernel import private
from sockmgr.manager.takeover.predecessor import recovered
from sockmgr.manager.takeover.state import boot_id
from tests.helpers.children import running
from tests.helpers.states import encode, state, worker

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory that is ours alone."""
    home = tmp_path / "run"
    home.mkdir(mode=0o700)
    assert private.flaw(home) == ""
    return home


def test_a_directory_that_others_may_write_is_none_of_ours_alone(home: Path) -> None:
    home.chmod(0o777)
    assert private.flaw(home) == f"every user may write to {home}"
    home.chmod(0o1777)
    assert private.flaw(home) == f"every user may write to {home}"
    home.chmod(0o755)
    assert private.flaw(home) == ""


def test_where_we_are_need_not_exist(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = home / "removed"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert private.flaw(home) == ""
    monkeypatch.chdir(home)


@as_root
def test_nor_is_one_that_a_group_may_write_but_for_our_own_private_group(home: Path) -> None:
    home.chmod(0o2770)
    assert private.flaw(home) == ""  # root:root
    os.chown(home, 0, STRANGER)
    assert private.flaw(home) == f"a group of users may write to {home}"


@as_root
def test_nor_one_that_belongs_to_another_user_or_is_below_what_does(home: Path) -> None:
    below = home / "a" / "b"
    below.mkdir(parents=True)
    assert private.flaw(below) == ""
    os.chown(home / "a", STRANGER, STRANGER)
    assert private.flaw(below).startswith(f"{home / 'a'} belongs to another user (")


def test_below_a_sticky_directory_a_name_of_ours_is_ours_alone(home: Path) -> None:
    home.chmod(0o1777)
    (home / "mine").mkdir(mode=0o700)
    assert private.flaw(home / "mine") == ""
    home.chmod(0o777)
    assert private.flaw(home / "mine") == f"every user may write to {home}"


@as_root
def test_a_link_counts_with_its_owner_and_with_all_that_it_leads_through(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    home.chmod(0o1777)
    link = home / "link"
    link.symlink_to("../run/real")
    assert private.flaw(link) == ""
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    assert private.flaw(link).startswith(f"{link} belongs to another user (")
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(OSError, match="symbolic links"):
        private.flaw(link)


@as_root
def test_an_access_list_may_name_anybody(home: Path) -> None:
    entries = [(1, 7, -1), (2, 7, STRANGER), (4, 0, -1), (16, 7, -1), (32, 0, -1)]  # acl(5)
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in entries)
    try:
        os.setxattr(home, "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("no access lists on this file system")
    assert private.flaw(home) == f"a group of users may write to {home}"


def test_what_is_written_is_whole_and_for_our_eyes_only(home: Path) -> None:
    path, secret = home / "shop.state", os.urandom(100_000)
    (home / "shop.state.new").write_text("left by one that died")
    before = os.umask(0)
    try:
        private.write_file(path, secret)
    finally:
        os.umask(before)
    assert path.read_bytes() == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in home.iterdir()] == ["shop.state"]


def test_a_file_that_others_can_read_already_gets_nothing(home: Path) -> None:
    open_still = home / "shop.state.new"
    with open_still.open("w+") as spy:
        private.write_file(home / "shop.state", b"DB_PASSWORD=secret")
        spy.seek(0)
        assert spy.read() == ""


def test_without_room_the_good_file_stays(home: Path) -> None:
    path = home / "shop.state"
    private.write_file(path, b"good")
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from sockmgr.kernel import private\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "private.write_file(Path(sys.argv[1]), bytes(5000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"good"
    assert [each.name for each in home.iterdir()] == ["shop.state"]


SPOILED: dict[str, Callable[[Path], object]] = {
    "belongs to another user": lambda path: os.chown(path, STRANGER, STRANGER),
    "may be written by others": lambda path: path.chmod(0o620),
    "may be read by others": lambda path: path.chmod(0o644),
    "has another name": lambda path: path.with_name("other").hardlink_to(path),
    "is a link": lambda path: path.rename(path.with_name("x")) and path.symlink_to("x"),
    "is a FIFO": lambda path: path.unlink() or os.mkfifo(path, 0o600),
}


@as_root
@pytest.mark.parametrize("how", SPOILED)
def test_a_state_is_obeyed_only_if_we_alone_can_have_written_it(how: str, home: Path) -> None:
    path = home / "shop.state"
    with running(["sleep", "600"], executable="/bin/sleep") as child:
        written = state([worker(child.process.pid)])
        private.write_file(path, encode(msgspec.structs.replace(written, boot_id=boot_id())))
        found = recovered(path)
        assert f"web@1.{child.process.pid}/pidfd" in found
        for fd in (fd for fds in found.values() for fd in fds):
            os.close(fd)
        SPOILED[how](path)
        assert recovered(path) == {}
