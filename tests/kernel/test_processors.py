"""What affinity and the quotas of cgroups leave us of the processors and the memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sockmgr.kernel import memory, own_cgroups, processors

GIGABYTE = 1 << 30


def within(monkeypatch: pytest.MonkeyPatch, place: str, files: dict[str, str], cores: int) -> None:
    """Be in the cgroup `place`, with these files below the root of all that we see."""
    known = {str(own_cgroups.root() / name): text for name, text in files.items()}
    known["/proc/self/cgroup"] = f"1:name=systemd:/elsewhere\n0::{place}\n"
    monkeypatch.setattr(own_cgroups, "read", lambda path: known.get(str(path), ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))


@pytest.mark.parametrize(
    ("place", "files", "available"),
    [
        ("/", {}, 8),
        ("/", {"cpu.max": "200000 100000\n"}, 2),  # a container sees its own as the root
        ("/", {"cpu.max": "max 100000\n"}, 8),
        ("/a.slice/b.service", {"a.slice/cpu.max": "150000 100000\n"}, 2),
        (
            "/a.slice/b.service",
            {"a.slice/cpu.max": "300000 100000\n", "a.slice/b.service/cpu.max": "50000 100000\n"},
            1,
        ),
        ("/a.slice", {"other/cpu.max": "100000 100000\n", "a.slice/cpu.max": "1600000 100000"}, 8),
        ("/a.slice", {"a.slice/cpu.max": "garbage"}, 8),
        ("/../out", {}, 8),  # outside of our cgroup namespace
    ],
)
def test_processors_are_those_of_affinity_and_of_the_least_quota(
    place: str, files: dict[str, str], available: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    within(monkeypatch, place, files, 8)
    assert processors.available() == available


def test_processors_are_no_more_than_the_affinity_of_this_process() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert processors.available() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("place", ["", "a.slice/b.service/"])
def test_the_memory_of_a_container_is_what_its_limit_leaves(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        f"{place}memory.max": f"{2 * GIGABYTE}\n",
        f"{place}memory.current": f"{GIGABYTE}\n",
        f"{place}memory.stat": f"anon 5\nactive_file {GIGABYTE // 2}\ninactive_file 0\n",
    }
    within(monkeypatch, f"/{place}".rstrip("/"), files, 1)
    monkeypatch.setattr(memory, "_field", lambda *_: 64 * GIGABYTE)
    assert memory.available() == 3 * GIGABYTE // 2


def test_cgroups_are_seen_up_to_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    within(monkeypatch, "/a/b", {}, 1)
    root = own_cgroups.root()
    assert list(own_cgroups.directories()) == [root / "a" / "b", root / "a", root]
    assert root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
