"""Which unit a process is in, and who else is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sockmgr.kernel.cgroup import Unit, members, unit_in
from sockmgr.kernel.procfs import everybody, member
from tests.helpers.children import python, wait_for_exit

V2 = "0::/system.slice/shop.service"
V1 = "1:name=systemd:/system.slice/shop.service"


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ([V2], V2),
        (["8:pids:/a.service", V1], V1),
        ([V1, V2], V2),
        ([V1, "0::/"], V1),
        ([f"{V2}/workers/of gunicorn"], V2),
        (["0::/user.slice/user-7.slice/user@7.service/app.slice/shop.service"],
         "0::/user.slice/user-7.slice/user@7.service/app.slice/shop.service"),
    ],
)  # fmt: skip
def test_a_service_is_known_by_its_cgroup(lines: list[str], line: str) -> None:
    found = unit_in(lines)
    assert found is not None
    assert (found.name, found.line) == ("shop.service", line)
    assert found.of_user == ("user@" in line)


@pytest.mark.parametrize(
    "line",
    [
        "0::/",
        "0::/../..",
        "0::/user.slice/user-7.slice/session-2.scope",
        "0::/user.slice/user-7.slice/user@7.service/app.slice/terminal.scope",
        "0::/system.slice",
        "8:pids:/system.slice/shop.service",
        "",
    ],
)
def test_a_cgroup_that_is_shared_with_others_is_no_service(line: str) -> None:
    assert unit_in([line]) is None


def test_a_name_that_systemd_had_to_escape_is_told_as_it_was() -> None:
    found = unit_in(["0::/system.slice/_cgroup.service"])
    assert found is not None
    assert found.name == "cgroup.service"


def test_only_what_is_in_a_unit_or_below_is_a_member() -> None:
    own = Path("/proc/self/cgroup").read_text().splitlines()[0]
    assert os.getpid() in members(Unit(name="", line=own))
    assert not members(Unit(name="", line=f"{own}x"))
    assert os.getpid() in members(Unit(name="", line=own.rpartition("/")[0]))


def test_a_process_is_seen_with_its_parent_group_and_session() -> None:
    with python("import time; print(1); time.sleep(60)") as child:
        child.line()
        found = member(child.pid)
        assert found in everybody()
        assert found is not None
        assert (found.parent, found.group, found.session) == (
            os.getpid(), child.pid, child.pid,
        )  # fmt: skip
        assert found.started > member(os.getpid()).started  # type: ignore[union-attr]
        child.process.signal(signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.process.pidfd, os.WEXITED | os.WNOWAIT)
        assert member(child.pid) is None  # dead, and not reaped yet
        wait_for_exit(child.process)
        assert member(child.pid) is None


def test_a_process_whose_first_thread_has_ended_still_lives() -> None:
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(1)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with python(program) as child:
        child.line()
        stat = Path(f"/proc/{child.pid}/stat")
        while b") Z " not in stat.read_bytes():
            os.sched_yield()
        assert member(child.pid) is not None
