"""Changes in real directories, heard through inotify."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel.inotify import Change, Inotify


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    found = Inotify()
    yield found
    found.close()


def heard(inotify: Inotify) -> list[tuple[str, Change]]:
    """What the kernel queued: it does so before the call that changes something returns."""
    return [(event.name, event.change) for event in inotify.read()]


def test_a_file_that_is_written_is_told_when_it_is_closed(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(str(tmp_path))
    with (tmp_path / "a.py").open("w") as file:
        file.write("x = 1\n")
        file.flush()
        assert heard(inotify) == [("a.py", Change.CREATE), ("a.py", Change.MODIFY)]
    assert heard(inotify) == [("a.py", Change.CLOSE_WRITE)]


def test_renames_and_deletes_are_told_by_both_names(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    inotify.add(str(tmp_path))
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new").unlink()
    assert heard(inotify) == [
        ("old", Change.MOVED_FROM), ("new", Change.MOVED_TO), ("new", Change.DELETE),
    ]  # fmt: skip


def test_reading_a_file_is_no_news(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    inotify.add(str(tmp_path))
    (tmp_path / "a").read_text()
    assert heard(inotify) == []


def test_a_directory_has_one_number_however_often_and_by_whatever_name_it_is_added(
    inotify: Inotify, tmp_path: Path
) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    number = inotify.add(str(directory))
    directory.rename(tmp_path / "b")
    assert inotify.add(str(tmp_path / "b")) == number


def test_a_directory_that_is_deleted_ends_its_watch(inotify: Inotify, tmp_path: Path) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    number = inotify.add(str(directory))
    directory.rmdir()
    assert [event[:2] for event in inotify.read()] == [
        (number, Change.DELETE_SELF), (number, Change.IGNORED),
    ]  # fmt: skip


def test_names_that_are_no_utf_8_survive(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(str(tmp_path))
    name = os.fsdecode(b"caf\xe9.py")
    (tmp_path / name).mkdir()
    assert heard(inotify) == [(name, Change.CREATE | Change.IS_DIRECTORY)]


@pytest.mark.parametrize(("name", "number"), [("gone", errno.ENOENT), ("file", errno.ENOTDIR)])
def test_what_is_no_directory_cannot_be_watched(
    inotify: Inotify, tmp_path: Path, name: str, number: int
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        inotify.add(str(tmp_path / name))
    assert caught.value.errno == number


def test_the_limit_of_watches_is_told_as_enospc(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""\
        import os
        from sockmgr.kernel.inotify import Inotify
        inotify = Inotify()
        for number in range(4):
            os.mkdir(f"{tmp_path}/{{number}}")
        try:
            for number in range(4):
                inotify.add(f"{tmp_path}/{{number}}")
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
