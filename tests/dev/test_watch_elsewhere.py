"""Edits that are made elsewhere than where the file is watched: behind links, and below mounts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sockmgr.dev.tree import ways
from sockmgr.errors import SockmgrError
from sockmgr.kernel.mounts import shared_types
from tests.helpers.watching import Watched, watching

Edit = Callable[[Path, Path], object]


def watched(root: Path, test: Callable[[Watched], Awaitable[None]]) -> None:
    async def main() -> None:
        complaints: list[SockmgrError] = []
        async with watching(root, complaints) as watched:
            await test(watched)
        assert not complaints

    asyncio.run(main(), debug=True)


def replace(path: Path, text: str) -> None:
    new = path.with_name("new.tmp")
    new.write_text(text)
    new.rename(path)


def relink(link: Path, target: str) -> None:
    new = link.with_name("new.link")
    new.symlink_to(target)
    new.rename(link)


# --- Links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        lambda target, _: target.write_text("2"),
        lambda target, _: replace(target, "2"),
        lambda _, link: link.write_text("2"),
        lambda target, _: target.unlink(),
    ],
    ids=["in place", "by rename", "through the link", "deleted"],
)
def test_an_edit_of_what_a_link_leads_to_is_found(tmp_path: Path, edit: Edit) -> None:
    root, target = tmp_path / "app", tmp_path / "shared" / "settings.py"
    for directory in (root, target.parent):
        directory.mkdir()
    target.write_text("1")
    (root / "settings.py").symlink_to("../shared/settings.py")

    async def test(watched: Watched) -> None:
        edit(target, root / "settings.py")
        assert await watched.changed() == {"settings.py"}
        target.unlink(missing_ok=True)
        assert await watched.changed() in ({"settings.py"}, set())
        target.write_text("3")
        assert await watched.changed() == {"settings.py"}

    watched(root, test)


def test_a_link_that_is_made_while_it_watches_is_followed(tmp_path: Path) -> None:
    root, target = tmp_path / "app", tmp_path / "settings.py"
    root.mkdir()
    target.write_text("1")

    async def test(watched: Watched) -> None:
        (root / "settings.py").symlink_to(target)
        assert await watched.changed() == {"settings.py"}
        target.write_text("2")
        assert await watched.changed() == {"settings.py"}

    watched(root, test)


def test_a_link_in_the_middle_of_the_way_is_heard(tmp_path: Path) -> None:
    root = tmp_path / "app"
    for directory in (root, tmp_path / "v1", tmp_path / "v2"):
        directory.mkdir()
        (directory / "settings.py").write_text(directory.name)
    (tmp_path / "current").symlink_to("v1")
    (tmp_path / "first.py").symlink_to("current/settings.py")
    relink(root / "settings.py", "../first.py")

    async def test(watched: Watched) -> None:
        relink(tmp_path / "current", "v2")
        assert await watched.changed() == {"settings.py"}
        (tmp_path / "v2" / "settings.py").write_text("3")
        assert await watched.heard() == {"settings.py"}

    watched(root, test)


def mounted_by_kubernetes(directory: Path, name: str) -> None:
    """As a ConfigMap is mounted: NAME -> ..data/NAME, ..data -> ..1."""
    for version in "12":
        (directory / f"..{version}").mkdir(parents=True)
        (directory / f"..{version}" / name).write_text(version)
    (directory / "..data").symlink_to("..1")
    (directory / name).symlink_to(f"..data/{name}")


def test_a_config_map_that_kubernetes_replaces_is_found(tmp_path: Path) -> None:
    mounted_by_kubernetes(tmp_path / "app", "settings.py")

    async def test(watched: Watched) -> None:
        for version in "212":
            relink(tmp_path / "app" / "..data", f"..{version}")
            assert await watched.changed() == {"settings.py"}

    watched(tmp_path / "app", test)


@pytest.mark.parametrize("kubernetes", [False, True])
def test_a_linked_config_is_found_when_it_is_edited(tmp_path: Path, kubernetes: bool) -> None:
    root, config, real = tmp_path / "app", tmp_path / "etc" / "shop.toml", tmp_path / "shop.toml"
    root.mkdir()
    if kubernetes:
        mounted_by_kubernetes(config.parent, config.name)
    else:
        config.parent.mkdir()
        real.write_text("1")
        config.symlink_to(real)

    async def test(watched: Watched) -> None:
        await watched.watcher.also([str(config)], since=config.stat().st_mtime + 60)
        if kubernetes:
            relink(config.parent / "..data", "..2")
        else:
            replace(real, "2")
        assert await watched.changed() == {"../etc/shop.toml"}

    watched(root, test)


def test_a_root_below_a_link_is_followed_to_the_next_release(tmp_path: Path) -> None:
    for release in "12":
        (tmp_path / release / "app").mkdir(parents=True)
        (tmp_path / release / "app" / "a.py").write_text(release)
    (tmp_path / "current").symlink_to("1")

    async def test(watched: Watched) -> None:
        relink(tmp_path / "current", "2")
        assert await watched.changed() == {"a.py"}
        (tmp_path / "2" / "app" / "a.py").write_text("3")
        assert await watched.heard() == {"a.py"}

    watched(tmp_path / "current" / "app", test)


def test_one_file_under_two_names_is_found_under_both(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "a.py").write_text("1")
    (tmp_path / "app" / "b.py").symlink_to("a.py")

    async def test(watched: Watched) -> None:
        (tmp_path / "app" / "a.py").write_text("2")
        assert await watched.changed() == {"a.py", "b.py"}

    watched(tmp_path / "app", test)


def test_the_way_to_a_file_ends_where_nothing_is_or_links_go_in_circles(tmp_path: Path) -> None:
    base = os.path.realpath(tmp_path)
    Path(base, "loop").symlink_to("loop")
    Path(base, "link").symlink_to("gone/a.py")
    assert ways(f"{base}/link") == [f"{base}/link", f"{base}/gone"]
    assert set(ways(f"{base}/loop/a.py")) <= {f"{base}/loop", base}
    assert ways("/") == [""]


# --- Mounts --------------------------------------------------------------------------------------

MOUNTED = """\
import asyncio, subprocess, sys
from pathlib import Path
from tests.helpers.watching import watching

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

async def main():
    root, complaints = Path(sys.argv[1]), []
    source, file = root.with_name("src.py"), root / "settings.py"
    {before}
    async with watching(root, complaints) as watched:
        {after}
    print(*complaints)

asyncio.run(main())
"""


def in_namespace(root: Path, before: str, after: str) -> str:
    """Run this where mounts are our own; return what was printed."""
    (root / "lib").mkdir(parents=True)
    (root / "settings.py").write_text("0")
    root.with_name("src.py").write_text("1")
    script = MOUNTED.format(before=before, after=after.replace("\n", "\n        "))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", script, root],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if "unshare failed" in done.stderr and not os.environ.get("CI"):
        pytest.skip(f"no namespace for mounts: {done.stderr}")
    assert not done.returncode, done.stderr
    return done.stdout.strip()


BIND = 'mount("--bind", str(source), str(file))'
EDITS = """\
source.write_text("2")
assert await watched.heard() == {"settings.py"}
file.write_text("3")
assert await watched.changed() == {"settings.py"}"""


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_is_mounted_is_heard_from_both_sides(tmp_path: Path, when: str) -> None:
    begins = (
        "" if when == "before" else f'{BIND}\nassert "settings.py" in await watched.changed()\n'
    )
    told = in_namespace(tmp_path / "app", BIND if when == "before" else "", begins + EDITS)
    assert told == ""


def test_a_directory_that_is_mounted_while_it_watches_is_heard(tmp_path: Path) -> None:
    after = """\
mount("-t", "tmpfs", "none", str(root / "lib"))
for text in ("1", "2"):
    (root / "lib" / "a.py").write_text(text)
    assert await watched.heard() == {"lib/a.py"}"""
    assert in_namespace(tmp_path / "app", "", after) == ""


def test_where_others_may_write_it_says_that_it_looks_and_does(tmp_path: Path) -> None:
    # As if tmpfs were FUSE, for which a test would need a server of its own.
    before = (
        "from sockmgr.kernel import mounts; mounts._OF_THIS_KERNEL -= {'tmpfs'}; "
        'mount("-t", "tmpfs", "none", str(root / "lib"))'
    )
    after = """\
watched.watcher._watch_thread.close()  # as deaf as it would be
(root / "lib" / "a.py").write_text("1")
assert await watched.changed() == {"lib/a.py"}"""
    told = in_namespace(tmp_path / "app", before, after)
    assert "app/lib is on a file system (tmpfs) where others may write unheard" in told
    assert "edits are found by looking every 1 s" in told


@pytest.mark.parametrize(
    "kind", ["fuse", "fuse.virtiofs", "virtiofs", "9p", "nfs4", "cifs", "vboxsf", "lustre", "new"]
)
def test_what_is_on_no_device_may_be_written_by_others(kind: str) -> None:
    assert shared_types({kind, "ext4", "tmpfs", "overlay", "btrfs", ""}) == {kind}


def test_polling_that_is_forced_listens_to_nothing_and_finds_each_save(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.py").write_text("0")
        complaints: list[SockmgrError] = []
        async with watching(tmp_path, complaints, polling=True) as watched:
            for save in "123":  # several in one second
                (tmp_path / "a.py").write_text(save)
                assert await watched.changed() == {"a.py"}
            assert watched.watcher._watch_thread is None
        assert not complaints

    asyncio.run(main(), debug=True)


def test_after_a_name_that_watchfiles_cannot_tell_it_says_so_and_looks(tmp_path: Path) -> None:
    async def main() -> None:
        complaints: list[SockmgrError] = []
        async with watching(tmp_path, complaints) as watched:
            (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("1")
            assert await watched.changed() == {os.fsdecode(b"caf\xe9.py")}
            (tmp_path / "a.py").write_text("1")
            assert await watched.changed() == {"a.py"}
        (told,) = map(str, complaints)
        assert "cannot hear of edits" in told
        assert "edits are found by looking" in told

    asyncio.run(main(), debug=True)
