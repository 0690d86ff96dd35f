"""Workers in cgroups below that of their unit: with a real systemd, which delegated it."""

from __future__ import annotations

from sockmgr.kernel.delegation import LEAF
from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.mishaps import LOAD, answered, guard_of, killed, restarted, serving
from tests.systemd.site import SERVICE, Site

UNIT = f"/system.slice/{SERVICE}"


def group(site: Site, pid: int) -> str:
    """Return the cgroup v2 of a process of the machine."""
    lines = site.machine.run("cat", f"/proc/{pid}/cgroup").stdout.splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def own(site: Site) -> set[str]:
    """Return the cgroups that the workers should have."""
    found = site.status()["services"]["http"]["workers"]
    return {f"{UNIT}/http@{each['generation']}.{each['slot']}" for each in found}


def test_each_worker_is_in_a_cgroup_below_the_unit_and_all_of_the_unit_is_ended_at_a_stop(
    machine: Machine,
) -> None:
    site = serving(machine)
    assert {group(site, pid) for pid in site.workers()} == own(site)
    # The units are for the oldest systemd, which starts the manager in the upper cgroup.
    assert {group(site, pid) for pid in (site.main_pid, guard_of(site))} == {f"{UNIT}/{LEAF}"}
    with site.load(LOAD) as load:
        for end in (killed, restarted):
            end(site)
            answered(load.result, 20)
            assert {group(site, pid) for pid in site.workers()} == own(site)
        machine.systemctl("reload", SERVICE)
        assert {group(site, pid) for pid in site.workers()} >= own(site)
    assert not load.result.failed, load.result
    machine.systemctl("stop", SERVICE)
    gone = f"/sys/fs/cgroup{UNIT}"
    wait_for(lambda: machine.run("test", "-d", gone, check=False).returncode, "the unit to be gone")


def test_workers_that_were_started_before_the_unit_was_delegated_are_adopted_where_they_are(
    machine: Machine,
) -> None:
    """As an upgrade from an older version finds them, whose units have no Delegate=."""
    site = serving(machine, drop_in="Delegate=no\n")
    workers = site.workers()
    assert {group(site, pid) for pid in workers} == {UNIT}
    assert "workers get no cgroups" in site.journal
    with site.load(LOAD) as load:
        site.drop_in("Delegate=yes\n")
        restarted(site)
        answered(load.result, 20)
        assert site.workers() == workers
        assert {group(site, pid) for pid in workers} == {f"{UNIT}/{LEAF}"}
        machine.systemctl("reload", SERVICE)
        wait_for(lambda: not workers.keys() & site.workers().keys(), "the old workers to end")
        assert {group(site, pid) for pid in site.workers()} == own(site)
    assert not load.result.failed, load.result
