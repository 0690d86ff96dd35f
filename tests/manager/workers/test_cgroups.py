"""What is written into the cgroup of a worker, and what is said where that cannot be."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from sockmgr.config.resources import Resources
from sockmgr.config.spec import Spec
from sockmgr.kernel.delegation import LEAF, Delegation, Group
from sockmgr.manager.workers.cgroups import Cgroups, out_of_memory
from tests.helpers.cgroups import pretended

ALL = Resources(memory_high=1 << 20, memory_max=1 << 30, cpu_weight=50, pids_max=9)


def spec(resources: Resources = ALL) -> Spec:
    return Spec(service="web", argv=("x",), executable="/x", cwd="/", resources=resources)


def cgroups(path: Path, leaf: str = "manager") -> Cgroups:
    return Cgroups(Delegation(path=path, leaf=path / leaf))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said since the last look."""
    found = [str(record.msg) for record in caplog.records if record.name == "sockmgr"]
    caplog.clear()
    return found


@pytest.fixture(autouse=True)
def all_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sockmgr")


def test_a_worker_is_put_into_its_cgroup_with_its_limits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pretended(tmp_path, controllers="cpu memory pids")
    group = cgroups(path).joined("web@7.2", spec(), os.getpid())
    assert group == Group(path / "web@7.2")
    written = {each.name: each.read_text() for each in group.path.iterdir()}
    # In a pretended file the last process stays, which is the main one or a child of it.
    assert written.pop("cgroup.procs")
    assert written == {
        "memory.high": str(1 << 20), "memory.max": str(1 << 30), "memory.oom.group": "1",
        "cpu.weight": "50", "pids.max": "9",
    }  # fmt: skip
    assert said(caplog) == [f"workers get cgroups below={path} controllers='cpu memory pids'"]


def test_a_limit_without_its_controller_is_told_once_and_the_others_are_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pretended(tmp_path, controllers="memory")
    found = cgroups(path)
    said(caplog)
    for number in (1, 2):
        group = found.joined(f"web@1.{number}", spec(), os.getpid())
        assert group is not None
        assert (group.path / "memory.max").read_text() == str(1 << 30)
        assert not (group.path / "pids.max").exists()
    told = said(caplog)
    assert len(told) == 2
    assert all("resources have no effect service=web" in each for each in told)
    assert "no pids controller" in told[1]
    (path / "cgroup.controllers").write_text("cpu memory pids")
    assert found.joined("web@1.3", spec(), os.getpid())
    (path / "cgroup.controllers").write_text("memory")
    (path / "cgroup.subtree_control").write_text("")
    assert found.joined("web@1.4", spec(), os.getpid())
    assert len(said(caplog)) == 2


@pytest.mark.parametrize("resources", [Resources(), ALL])
def test_without_delegation_workers_are_process_groups_and_that_is_said_once(
    resources: Resources, caplog: pytest.LogCaptureFixture
) -> None:
    found = Cgroups("none was delegated to the manager (Delegate=yes)")
    for number in (1, 2, 3):
        assert found.joined(f"web@1.{number}", spec(resources), os.getpid()) is None
    assert found.of(os.getpid()) is None
    first, *more = said(caplog)
    assert first.startswith("workers get no cgroups because='none was delegated")
    assert len(more) == bool(resources.writes())
    assert all("keys='memory_high, memory_max, cpu_weight, pids_max'" in each for each in more)


def test_a_delegation_that_is_lost_is_told_once_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pretended(tmp_path / "ours", controllers="cpu memory pids")
    found = cgroups(path)
    said(caplog)
    path.rename(tmp_path / "gone")
    for number in (1, 2):
        assert found.joined(f"web@1.{number}", spec(), os.getpid()) is None
    told = said(caplog)
    assert [each.split("=")[0] for each in told] == [
        "no cgroup for a worker worker", "resources have no effect service",
    ]  # fmt: skip
    assert "No such file or directory" in told[0]
    (tmp_path / "gone").rename(path)
    assert found.joined("web@1.3", spec(), os.getpid())
    assert said(caplog) == ["workers get cgroups again worker=web@1.3"]


def test_one_that_cannot_be_settled_in_is_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = pretended(tmp_path)
    (path / LEAF).write_text("a file where the leaf is to be")
    found = cgroups(path, LEAF)
    assert found.joined("web@1.1", spec(Resources()), os.getpid()) is None
    (only,) = said(caplog)
    assert only.startswith("workers get no cgroups because=")
    assert "File exists" in only


def test_a_cgroup_that_is_still_busy_is_removed_with_the_next(tmp_path: Path) -> None:
    found = cgroups(pretended(tmp_path))
    first, busy = Group(tmp_path / "web@1.1"), tmp_path / "web@1.1" / "a process"
    first.path.mkdir()
    busy.touch()
    found.ended("web@1.1", spec(), first)
    assert first.path.exists()
    busy.unlink()
    assert found.joined("web@1.2", spec(Resources()), os.getpid())
    assert not first.path.exists()


@pytest.mark.parametrize(
    ("resources", "peak", "words"),
    [
        (ALL, "1073741824", "memory was short, it used up to 1.0G of memory_max = 1.0G"),
        (Resources(), "1073741824", "it used up to 1.0G; no memory_max was set for it"),
        (ALL, None, "memory was short of memory_max = 1.0G"),
    ],
)
def test_a_worker_killed_for_its_memory_is_named_with_its_peak(
    tmp_path: Path,
    resources: Resources,
    peak: str | None,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = Group(tmp_path)
    assert out_of_memory(group, spec(resources)) == out_of_memory(None, spec(resources)) == ""
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 2\noom_group_kill 1\n")
    if peak:
        (tmp_path / "memory.peak").write_text(f"{peak}\n")
    cgroups(pretended(tmp_path / "ours")).ended("web@7.2", spec(resources), group)
    told = said(caplog)[-1]
    assert told.startswith("worker out of memory worker=web@7.2 why='the kernel killed it")
    assert words in told
