"""What comes and goes in real directories, heard through inotify."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel.inotify import ARRIVALS, REMOVALS, Inotify


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    found = Inotify()
    yield found
    found.close()


def test_what_comes_and_goes_is_told_if_it_was_asked_for(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(str(tmp_path), REMOVALS)
    (tmp_path / "old").write_text("x")  # neither this nor reading it is a removal
    (tmp_path / "old").read_text()
    assert inotify.read() == []
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new").unlink()
    assert inotify.read() == ["old", "new"]
    inotify.add(str(tmp_path), ARRIVALS)
    (tmp_path / "a").touch()
    (tmp_path / "a").rename(tmp_path / "b")
    assert inotify.read() == ["a", "b"]


def test_a_directory_has_one_number_however_often_and_by_whatever_name_it_is_added(
    inotify: Inotify, tmp_path: Path
) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    number = inotify.add(str(directory), REMOVALS)
    directory.rename(tmp_path / "b")
    assert inotify.add(str(tmp_path / "b"), REMOVALS) == number


def test_a_directory_that_is_deleted_is_told_without_a_name(
    inotify: Inotify, tmp_path: Path
) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    inotify.add(str(directory), REMOVALS)
    directory.rmdir()
    assert set(inotify.read()) == {""}


def test_names_that_are_no_utf_8_survive(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(str(tmp_path), ARRIVALS)
    name = os.fsdecode(b"caf\xe9.py")
    (tmp_path / name).mkdir()
    assert inotify.read() == [name]


@pytest.mark.parametrize(("name", "number"), [("gone", errno.ENOENT), ("file", errno.ENOTDIR)])
def test_what_is_no_directory_cannot_be_watched(
    inotify: Inotify, tmp_path: Path, name: str, number: int
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        inotify.add(str(tmp_path / name), REMOVALS)
    assert caught.value.errno == number


def test_the_limit_of_watches_is_told_as_enospc(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""\
        import os
        from sockmgr.kernel.inotify import REMOVALS, Inotify
        inotify = Inotify()
        for number in range(4):
            os.mkdir(f"{tmp_path}/{{number}}")
        try:
            for number in range(4):
                inotify.add(f"{tmp_path}/{{number}}", REMOVALS)
        except OSError as error:
            print(number, error.errno)
    """)
    # A user namespace has limits of its own: user_namespaces(7), namespaces(7).
    limited = f"echo 3 >/proc/sys/user/max_inotify_watches && exec {sys.executable} -"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limited],
        input=program, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"no user namespace with limits of its own: {done.stderr}")
    assert done.stdout == f"3 {errno.ENOSPC}\n", done.stderr
