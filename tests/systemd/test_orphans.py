"""No process of a unit is left when no manager can come back, in whatever way that came to be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sockmgr.systemd.unit_lines import HARDENING
from tests.e2e.harness import wait_for
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.site import SYSUSERS

UNIT = "stand-in.service"
STAND_IN = "/srv/checkout/tests/systemd/stand_in.py"


class Standing:
    """The stand-in as a service that is hardened as ours is."""

    def __init__(self, machine: Machine, worker: str = "1", env: str = "", **more: str) -> None:
        self.machine = machine
        self.directory = machine.shared / "stand-in"
        self.directory.mkdir()
        self.directory.chmod(0o777)
        machine.run("systemd-sysusers", SYSUSERS)
        self._settings = {
            "Type": "notify",
            "ExecStart": f'{PYTHON} {STAND_IN} {self.directory} "{worker}"',
            "Restart": "always",
            "RestartSec": "100ms",
            "TimeoutStopSec": "1s",
            "KillMode": "process",
            "FileDescriptorStoreMax": "64",
            "User": "sockmgr",
            "ReadWritePaths": str(self.directory),
            "Environment": "LD_LIBRARY_PATH=/srv/base/lib PYTHONPATH=/srv/checkout:/srv/site "
            f"PYTHONDONTWRITEBYTECODE=1 {env}",
        }
        self.configure(**more)

    def configure(self, **more: str) -> None:
        """Change settings of the service."""
        self._settings |= more
        lines = {f"{key}={value}": key.startswith("Start") for key, value in self._settings.items()}
        of_unit = [line for line, is_of_unit in lines.items() if is_of_unit]
        of_service = [line for line in lines if line not in of_unit]
        text = "\n".join(["[Unit]", *of_unit, "[Service]", *of_service, *HARDENING, ""])
        self.machine.write(f"/etc/systemd/system/{UNIT}", text)
        self.machine.systemctl("daemon-reload")

    @property
    def pids(self) -> list[int]:
        """The processes of the unit."""
        path = f"/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs"
        return [int(pid) for pid in self.machine.run("cat", path, check=False).stdout.split()]

    @property
    def main_pid(self) -> int:
        return int(self.machine.property(UNIT, "MainPID"))

    @property
    def state(self) -> str:
        return self.machine.property(UNIT, "ActiveState")

    @property
    def diary(self) -> list[str]:
        """What happened, but for what only one test wants to know."""
        return [line for line in self.whole_diary if line.split()[0] not in ("manager", "ending")]

    @property
    def whole_diary(self) -> list[str]:
        return (self.directory / "diary").read_text().splitlines()

    def systemctl(self, verb: str, *more: str) -> None:
        self.machine.systemctl(verb, *more, UNIT)

    def kill(self) -> None:
        """Kill the manager as nobody can prevent it; return when systemd knows that it ended."""
        old = self.main_pid
        self.machine.run("kill", "-KILL", str(old))
        wait_for(lambda: self.main_pid != old, "systemd to see the end")

    def is_empty(self) -> bool:
        return not self.pids


# --- Ways to have no manager any more ------------------------------------------------------------


def stop_a_manager_that_leaves(standing: Standing) -> None:
    standing.systemctl("stop")


def stop_a_manager_that_hangs(standing: Standing) -> None:
    standing.machine.run("kill", "-STOP", str(standing.main_pid))
    standing.systemctl("stop")


def stop_while_it_waits_for_the_restart(standing: Standing) -> None:
    standing.configure(RestartSec="1h")
    standing.kill()
    wait_for(lambda: standing.state == "activating", "the wait for the restart")
    assert standing.diary == ["ready"]
    standing.systemctl("stop")


def hit_the_start_limit(standing: Standing) -> None:
    standing.configure(StartLimitBurst="1", StartLimitIntervalSec="1h")
    killed(standing)
    standing.kill()
    wait_for(lambda: standing.state == "failed", "the start limit")


def fail_for_good(standing: Standing) -> None:
    standing.configure(Restart="no")
    standing.kill()
    wait_for(lambda: standing.state == "failed", "the failure")


def fail_to_start_again(standing: Standing) -> None:
    standing.configure(ExecStart="/nowhere/sockmgr", RestartSec="1h")
    standing.kill()
    standing.systemctl("stop")


WAYS = [
    stop_a_manager_that_leaves,
    stop_a_manager_that_hangs,
    stop_while_it_waits_for_the_restart,
    hit_the_start_limit,
    fail_for_good,
    fail_to_start_again,
]


@pytest.mark.parametrize("way", WAYS)
def test_workers_drain_and_nobody_is_left(
    machine: Machine, way: Callable[[Standing], None]
) -> None:
    standing = Standing(machine)
    standing.systemctl("start")
    assert len(standing.pids) == 4  # the manager, its guard, a worker, and one who belongs to none
    way(standing)
    wait_for(standing.is_empty, "the end of all")
    assert [line for line in standing.diary if "adopted" not in line] == [
        "ready", "SIGQUIT", "drained",
    ]  # fmt: skip
    assert "nothing is left" in machine.journal(UNIT)


def test_a_worker_that_does_not_drain_is_killed_after_its_time(machine: Machine) -> None:
    standing = Standing(machine, "1000 fork", env="DRAIN_TIMEOUT=0.5")
    standing.systemctl("start")
    standing.systemctl("stop")
    wait_for(standing.is_empty, "the end of all")
    assert standing.diary == ["ready", "ready", "SIGQUIT"]


def test_all_are_ended_even_if_our_python_has_been_removed(machine: Machine) -> None:
    standing = Standing(machine, env="GUARD_PYTHON=/nowhere/python")
    standing.systemctl("start")
    stop_while_it_waits_for_the_restart(standing)
    wait_for(standing.is_empty, "the end of all")
    assert standing.diary == ["ready", "SIGTERM"]
    assert f"ending all of 0::/system.slice/{UNIT}" in machine.journal(UNIT)


def test_nothing_outside_of_the_unit_is_touched(machine: Machine) -> None:
    other = "[Service]\nExecStart=sleep 1000\nUser=sockmgr\n"
    machine.write("/etc/systemd/system/other.service", other)
    standing = Standing(machine)
    machine.systemctl("start", "other.service", UNIT)
    standing.systemctl("stop")
    wait_for(standing.is_empty, "the end of all")
    assert machine.property("other.service", "ActiveState") == "active"


# --- Ways to have another one --------------------------------------------------------------------


def killed(standing: Standing) -> None:
    standing.kill()
    wait_for(lambda: standing.main_pid, "another manager")


def restarted(standing: Standing) -> None:
    standing.systemctl("restart")


@pytest.mark.parametrize("way", [killed, restarted])
def test_nobody_is_told_anything_when_another_manager_comes(
    machine: Machine, way: Callable[[Standing], None]
) -> None:
    standing = Standing(machine)
    standing.systemctl("start")
    before = set(standing.pids) - {standing.main_pid}
    for _ in range(2):
        way(standing)
        wait_for(lambda: standing.state == "active", "READY")
        assert set(standing.pids) - {standing.main_pid} == before
    assert standing.diary == ["ready", "adopted True", "adopted True"]
    standing.systemctl("stop")
    wait_for(standing.is_empty, "the end of all")
    assert standing.diary[-2:] == ["SIGQUIT", "drained"]


def test_a_manager_that_is_started_while_the_last_one_s_workers_drain_keeps_its_own(
    machine: Machine,
) -> None:
    standing = Standing(machine, "2")
    standing.systemctl("start")
    old = set(standing.pids)
    standing.configure(RestartSec="1h")
    standing.kill()
    wait_for(lambda: standing.state == "activating", "the wait for the restart")
    # In one breath: no time for the guard to act between the two.
    machine.run("sh", "-c", f"systemctl stop {UNIT}; systemctl start {UNIT}")
    wait_for(lambda: "drained" in standing.diary, "the end of the old worker")
    assert sorted(standing.diary) == ["SIGQUIT", "drained", "ready", "ready"]
    assert machine.property(UNIT, "NRestarts") == "0"
    wait_for(lambda: len(set(standing.pids) - old) == 4, "only the new ones")
    standing.systemctl("stop")
    wait_for(standing.is_empty, "the end of all")


def test_a_manager_that_has_ended_its_workers_leaves_nobody_behind(machine: Machine) -> None:
    standing = Standing(machine, Restart="no")
    standing.systemctl("start")
    machine.run("kill", "-USR1", str(standing.main_pid))
    wait_for(lambda: standing.state == "inactive", "the end")
    assert "SIGQUIT" not in standing.diary
    assert "no manager can come back" not in machine.journal(UNIT)


# --- What systemd tells us -----------------------------------------------------------------------


@pytest.mark.parametrize("user", ["root", "sockmgr"])
def test_a_manager_knows_whether_it_is_stopped_or_restarted(machine: Machine, user: str) -> None:
    standing = Standing(machine, User=user)
    standing.systemctl("start")
    standing.systemctl("restart")
    standing.systemctl("stop")
    assert endings(standing) == ["restart", "stop"]


def test_a_manager_that_only_got_a_signal_is_not_told_why(machine: Machine) -> None:
    standing = Standing(machine, User="root", Restart="no")
    standing.systemctl("start")
    machine.run("kill", "-TERM", str(standing.main_pid))
    wait_for(lambda: standing.state == "inactive", "the end")
    assert endings(standing) == ["unknown"]


def test_without_d_bus_a_manager_that_is_not_root_says_that_it_does_not_know(
    machine: Machine,
) -> None:
    machine.systemctl("stop", "dbus.socket", "dbus.service")
    standing = Standing(machine)
    standing.systemctl("start")
    standing.systemctl("stop")
    assert endings(standing) == ["unknown"]


def test_the_limit_of_the_fd_store_is_known(machine: Machine) -> None:
    standing = Standing(machine)
    standing.systemctl("start")
    assert standing.whole_diary[0].endswith("limit 64")
    assert machine.property(UNIT, "NFileDescriptorStore") == "4"


def endings(standing: Standing) -> list[str]:
    return [line.split()[1] for line in standing.whole_diary if line.startswith("ending")]
