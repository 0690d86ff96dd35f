"""Edits of real files, as editors and tools make them, and what is found to have changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from sockmgr.dev.tree import CLOCK
from sockmgr.errors import SockmgrError
from sockmgr.kernel.mounts import file_system, table
from tests.helpers.watching import Watched, watching

Test = Callable[[Watched], Awaitable[None]]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "home" / "shop"
    (root / "templates" / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "node_modules" / "a").mkdir(parents=True)
    for name in ("views.py", "templates/base.html", "templates/deep/x.html", ".git/index"):
        (root / name).write_text("1")
    return root


@pytest.fixture
def complaints() -> Iterator[list[SockmgrError]]:
    """Complaints: a test that expects none finds none."""
    found: list[SockmgrError] = []
    yield found
    assert not found


@pytest.fixture
def run(shop: Path, complaints: list[SockmgrError]) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def main() -> None:
            async with watching(shop, complaints) as watched:
                await test(watched)

        asyncio.run(main(), debug=True)

    return run


Run = Callable[[Test], None]


def test_a_written_file_is_told_and_found_once(run: Run) -> None:
    async def test(watched: Watched) -> None:
        (watched.root / "views.py").write_text("2")
        await watched.woken.wait()
        assert await watched.changed() == {"views.py"}
        assert await watched.changed() == set()

    run(test)


def test_a_file_that_is_read_while_it_is_written_is_found_again_when_it_is_whole(run: Run) -> None:
    async def test(watched: Watched) -> None:
        with (watched.root / "views.py").open("w") as file:
            assert await watched.changed() == {"views.py"}
            file.write("1")
        assert await watched.changed() == {"views.py"}

    run(test)


def test_the_same_content_is_no_change_but_a_rewrite(run: Run) -> None:
    async def test(watched: Watched) -> None:
        (watched.root / "views.py").write_text("1")
        assert not await watched.changed()
        assert watched.rewritten == {str(watched.root / "views.py")}

    run(test)


def test_what_was_edited_while_watching_began_counts(
    shop: Path, complaints: list[SockmgrError]
) -> None:
    async def main() -> None:
        page = shop / "templates" / "base.html"
        before = (shop / "views.py").stat().st_ctime
        while page.stat().st_ctime < before + 2 * CLOCK:
            os.utime(page, (1e9, 1e9))  # as `cp -p` and rsync leave it
        watched = Watched(shop, complaints)
        looked = await watched.watcher.open(page.stat().st_ctime)
        watched.watcher.close()
        watched.elsewhere.cleanup()
        assert str(shop / "views.py") not in looked.changed
        assert str(page) in looked.changed

    asyncio.run(main())


def test_what_only_looks_like_an_edit_is_not_heard(run: Run) -> None:
    async def test(watched: Watched) -> None:
        (watched.root / ".git" / "index").write_text("2")
        (watched.root / ".git" / "x.py").write_text("2")
        (watched.root / "node_modules" / "a" / "index.js").write_text("2")
        (watched.root / "__pycache__").mkdir()
        (watched.root / "shop.log").write_text("2")
        (watched.root / "views.py").read_text()
        (watched.root / "views.py").chmod(0o600)
        assert not await watched.changed()
        assert watched.notices == 1, "more than the file was told by which we know that it is all"

    run(test)


def save_by_rename(file: Path) -> None:
    """As most editors do."""
    new = file.with_name(f".{file.name}.swp")
    new.write_text("2")
    new.rename(file)


def save_with_backup(file: Path) -> None:
    """As vim does."""
    file.rename(file.with_name(f"{file.name}~"))
    file.write_text("2")
    file.with_name(f"{file.name}~").unlink()


def save_through_link(file: Path) -> None:
    """As emacs and deployments do it."""
    real = file.with_name("real")
    real.write_text("2")
    file.unlink()
    file.symlink_to(real)


@pytest.mark.parametrize("save", [save_by_rename, save_with_backup, save_through_link])
def test_however_an_editor_saves_its_file_is_found(run: Run, save: Callable[[Path], None]) -> None:
    async def test(watched: Watched) -> None:
        for _ in range(2):
            save(watched.root / "views.py")
            assert await watched.changed() == {"views.py"}
            (watched.root / "views.py").unlink()
            (watched.root / "views.py").write_text("1")
            assert await watched.changed() == {"views.py"}

    run(test)


def test_new_renamed_and_deleted_files_are_found(run: Run) -> None:
    async def test(watched: Watched) -> None:
        (watched.root / "new.py").write_text("")
        assert await watched.changed() == {"new.py"}
        (watched.root / "new.py").rename(watched.root / "other.py")
        assert await watched.changed() == {"new.py", "other.py"}
        (watched.root / "other.py").unlink()
        assert await watched.changed() == {"other.py"}

    run(test)


def test_new_directories_are_watched_with_what_is_in_them_already(run: Run) -> None:
    async def test(watched: Watched) -> None:
        (watched.root / "a" / "b").mkdir(parents=True)
        (watched.root / "a" / "b" / "x.py").write_text("1")
        assert await watched.changed() == {"a/b/x.py"}
        (watched.root / "a" / "b" / "x.py").write_text("2")
        assert await watched.changed() == {"a/b/x.py"}

    run(test)


def test_renamed_directories_are_watched_under_their_new_name(run: Run) -> None:
    async def test(watched: Watched) -> None:
        (watched.root / "templates").rename(watched.root / "views")
        assert await watched.changed() == {
            "templates/base.html", "templates/deep/x.html", "views/base.html", "views/deep/x.html",
        }  # fmt: skip
        (watched.root / "views" / "deep" / "x.html").write_text("2")
        assert await watched.changed() == {"views/deep/x.html"}

    run(test)


def test_directories_that_leave_are_forgotten_and_found_when_they_come_back(run: Run) -> None:
    async def test(watched: Watched) -> None:
        away = watched.root.parent / "away"
        (watched.root / "templates").rename(away)
        assert await watched.changed() == {"templates/base.html", "templates/deep/x.html"}
        (away / "base.html").write_text("2")
        assert not await watched.changed()
        away.rename(watched.root / "templates")
        assert await watched.changed() == {"templates/base.html", "templates/deep/x.html"}
        (watched.root / "templates" / "base.html").write_text("3")
        assert await watched.changed() == {"templates/base.html"}

    run(test)


@pytest.mark.parametrize("gone", ["shop", "home"])
def test_a_watched_directory_that_is_deleted_and_made_again_is_watched_again(
    run: Run, gone: str
) -> None:
    async def test(watched: Watched) -> None:
        for turn in "12":
            shutil.rmtree(next(p for p in (watched.root, *watched.root.parents) if p.name == gone))
            assert "views.py" in await watched.changed()
            watched.root.mkdir(parents=True)
            await watched.changed()
            (watched.root / "views.py").write_text(turn)
            assert await watched.changed() == {"views.py"}

    run(test)


def test_a_root_that_is_a_link_is_followed_to_the_next_release(
    tmp_path: Path, complaints: list[SockmgrError]
) -> None:
    async def main() -> None:
        for release in "12":
            (tmp_path / release).mkdir()
            (tmp_path / release / "a.py").write_text(release)
        (tmp_path / "current").symlink_to("1")
        async with watching(tmp_path / "current", complaints) as watched:
            (tmp_path / "new").symlink_to("2")
            (tmp_path / "new").rename(tmp_path / "current")
            assert await watched.changed() == {"a.py"}
            (tmp_path / "2" / "a.py").write_text("3")
            assert await watched.heard() == {"a.py"}
            (tmp_path / "1" / "a.py").write_text("3")
            assert await watched.changed() == set()

    asyncio.run(main())


def test_a_file_outside_is_watched_when_it_is_named(run: Run, tmp_path: Path) -> None:
    async def test(watched: Watched) -> None:
        outside = tmp_path / "lib" / "flask.py"
        outside.parent.mkdir()
        outside.write_text("1")
        looked = await watched.watcher.also([str(outside)], since=outside.stat().st_mtime + 60)
        assert not looked.changed
        outside.write_text("2")
        assert await watched.changed() == {"../../lib/flask.py"}
        outside.unlink()
        assert await watched.changed() == {"../../lib/flask.py"}
        (outside.parent / "other.py").write_text("1")
        assert await watched.changed() == set()
        outside.write_text("3")
        assert await watched.changed() == {"../../lib/flask.py"}

    run(test)


def test_a_file_outside_that_was_edited_before_it_was_named_counts(
    run: Run, tmp_path: Path
) -> None:
    async def test(watched: Watched) -> None:
        outside = tmp_path / "flask.py"
        outside.write_text("1")
        looked = await watched.watcher.also([str(outside)], since=outside.stat().st_mtime)
        assert list(looked.changed) == [str(outside)]

    run(test)


def test_a_checkout_of_a_thousand_files_is_found_whole(run: Run, shop: Path) -> None:
    async def test(watched: Watched) -> None:
        expected = set()
        for number in range(1000):
            file = watched.root / f"d{number // 50}" / "sub" / f"f{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("1")
            expected.add(str(file.relative_to(shop)))
        assert await watched.changed() == expected

    run(test)


def test_nothing_is_lost_when_the_kernel_drops_events(run: Run) -> None:
    async def test(watched: Watched) -> None:
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        other = watched.root / "other.py"
        for _ in range(limit // 3 + 1):  # created, renamed, renamed: no two events are merged
            other.touch()
            other.rename(watched.root / "another.py")
        (watched.root / "views.py").write_text("2")
        while "views.py" not in await watched.changed():
            pass

    run(test)


def test_files_that_cannot_be_read_and_are_no_files_are_no_trouble(run: Run) -> None:
    async def test(watched: Watched) -> None:
        os.mkfifo(watched.root / "fifo.py")
        (watched.root / "loop.py").symlink_to("loop.py")
        (watched.root / "directory.py").mkdir()
        with (watched.root / "large.py").open("w") as file:
            file.truncate(1 << 30)
        assert await watched.changed() == {"large.py"}

    run(test)


# --- Where inotify does not do -------------------------------------------------------------------


LIMITED = """\
import asyncio, sys
from pathlib import Path
from tests.helpers.watching import watching

async def main():
    root, complaints = Path(sys.argv[1]), []
    async with watching(root, complaints) as watched:
        print(complaints.pop())
        (root / "views.py").write_text("2")
        await asyncio.wait_for(watched.woken.wait(), 20)
        assert await watched.changed() == {"views.py"}
        print("found by looking", complaints)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("name", "limit", "told"),
    [
        ("max_inotify_watches", "2", "fs.inotify.max_user_watches="),
        ("max_inotify_instances", "0", "fs.inotify.max_user_instances="),
    ],
)
def test_at_the_limits_of_inotify_it_says_so_and_looks_regularly(
    shop: Path, name: str, limit: str, told: str
) -> None:
    # A user namespace has limits of its own: namespaces(7).
    script = f"echo {limit} >/proc/sys/user/{name} && exec {sys.executable} -c '{LIMITED}' {shop}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"no user namespace with limits of its own: {done.stderr}")
    first, means, do, last = done.stdout.splitlines()
    assert "the limit of" in first
    assert means.strip().startswith("edits are found by looking every 1 s")
    assert do.strip().startswith(f"sudo sysctl {told}")
    assert last == "found by looking []"


def test_the_file_system_of_a_path_is_known() -> None:
    points = table()
    assert file_system("/proc/self", points) == "proc"
    assert file_system("/dev/shm", points) == "tmpfs"
    assert file_system("/no/such/path", points) == file_system("/", points)
