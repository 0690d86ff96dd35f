"""What is ours of the tree of cgroups, and the cgroups in it: pretended ones, and real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.kernel import delegation, own_cgroups
from sockmgr.kernel.delegation import LEAF, Delegation, Group
from tests.e2e.harness import wait_for
from tests.helpers.cgroups import pretended, real


def ours(path: Path, leaf: str = "manager") -> Delegation:
    return Delegation(path=path, leaf=path / leaf)


def test_controllers_are_given_to_the_children_where_there_are_any(tmp_path: Path) -> None:
    ours_ = ours(pretended(tmp_path))
    failed = ours_.enable({"memory", "pids"})
    assert failed == {"pids": f"there is no pids controller for {tmp_path}"}
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"


def test_controllers_that_the_children_have_are_not_given_again(tmp_path: Path) -> None:
    found = ours(pretended(tmp_path))
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    assert found.enable({"memory"}) == {}
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory\n"


def test_a_service_that_systemd_could_not_start_again_gets_no_controllers(tmp_path: Path) -> None:
    """systemd starts the manager in the upper cgroup, unless DelegateSubgroup= names another."""
    path = pretended(tmp_path / "shop.service", leaf=LEAF)
    failed = ours(path, LEAF).enable({"memory"})
    assert "DelegateSubgroup=" in failed["memory"]
    assert (path / "cgroup.subtree_control").read_text() == "\n"
    assert ours(path, "manager").enable({"memory"}) == {}


def test_a_controller_that_cannot_be_had_is_told_with_the_reason_of_the_kernel(
    tmp_path: Path,
) -> None:
    path = pretended(tmp_path)
    (path / "cgroup.subtree_control").unlink()
    (path / "cgroup.subtree_control").mkdir()
    assert ours(path).enable({"memory"}) == {
        "memory": "cannot have the memory controller: Is a directory"
    }


def test_a_name_that_is_still_taken_gets_a_mark(tmp_path: Path) -> None:
    found = ours(pretended(tmp_path))
    first = found.make("web@1.1")
    (first.path / "busy").write_text("a process")
    assert found.make("web@1.1").path.name == "web@1.1+"
    (first.path / "busy").unlink()
    assert found.make("web@1.1").path.name == "web@1.1"


@pytest.mark.parametrize(("text", "kills"), [("low 0\noom_kill 3\n", 3), ("low 0\n", 0), ("", 0)])
def test_kills_for_memory_are_counted(tmp_path: Path, text: str, kills: int) -> None:
    (tmp_path / "memory.events").write_text(text)
    assert Group(tmp_path).oom_kills == kills


def test_pressure_is_that_of_at_least_one_process(tmp_path: Path) -> None:
    some = "some avg10=1.50 avg60=0.81 avg300=0.19 total=2500000\n"
    (tmp_path / "memory.pressure").write_text(f"{some}full avg10=9.00 avg60=0 avg300=0 total=9\n")
    assert Group(tmp_path).pressure("memory") == (1.5, 2.5)
    assert Group(tmp_path).pressure("io") is None


def test_nothing_is_ours_that_nobody_has_delegated() -> None:
    # Whoever runs these tests: the process of a test is in no cgroup that a service delegated.
    assert isinstance(delegation.find(), str)


# --- The kernel's -----------------------------------------------------------------------------

SLEEPER = (sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)")
# A daemon: no parent, session or group tells whose it is.
DAEMON = (
    "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0);"
    "time.sleep(60)"
)


@pytest.fixture
def mine() -> Iterator[Path]:
    """Return a real cgroup that is delegated to us."""
    yield from real()


def test_whoever_is_in_the_upper_cgroup_is_moved_to_a_leaf_and_found_there(mine: Path) -> None:
    with subprocess.Popen(SLEEPER) as child:
        Group(mine).add(child.pid)
        found = delegation.find(child.pid)
        assert found == ours(mine, LEAF)
        assert isinstance(found, Delegation)
        found.settle()
        assert own_cgroups.of(child.pid) == mine / LEAF
        assert delegation.find(child.pid) == found
        child.kill()


def test_one_that_systemd_has_started_in_a_leaf_stays_there(mine: Path) -> None:
    (mine / "manager").mkdir()
    with subprocess.Popen(SLEEPER) as child:
        Group(mine / "manager").add(child.pid)
        assert delegation.find(child.pid) == ours(mine, "manager")
        child.kill()


def test_a_daemon_that_left_everything_else_is_in_the_cgroup_and_dies_with_it(mine: Path) -> None:
    group = ours(mine).make("web@1.1")
    start = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    argv = ("sh", "-c", start, str(group.path), *SLEEPER[:-1], DAEMON)
    subprocess.run(argv, check=True)
    wait_for(lambda: [os.getsid(one) == one for one in group.members()] == [False], "it alone")
    (pid,) = group.members()
    assert ours(mine).group_of(pid) == group
    assert not group.remove()
    group.kill()
    wait_for(group.remove, "the daemon to end")
    assert group.members() == []


def test_what_cannot_be_is_an_error_and_no_exception_of_another_kind(mine: Path) -> None:
    (mine / "cgroup.max.descendants").write_text("0")
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        ours(mine).make("web@1.1")
    mine.rmdir()
    with pytest.raises(FileNotFoundError):
        ours(mine).make("web@1.1")
    assert Group(mine / "web@1.1").members() == []
