"""The manager dies, hangs or is restarted, and the next one goes on with its running workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.mishaps import (
    LOAD,
    answered,
    await_ready,
    guard_of,
    hung,
    kill,
    killed,
    restarted,
    serving,
)
from tests.systemd.site import SERVICE, Site


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site that serves version 1 by two workers."""
    return serving(machine)


# --- What happens to managers --------------------------------------------------------------------


# --- At rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [killed, restarted, hung])
def test_the_workers_stay_the_same_and_no_request_is_lost_whatever_ends_the_manager(
    machine: Machine, end: Callable[[Site], None]
) -> None:
    site = serving(machine, drop_in="WatchdogSec=1s\n")
    workers, guard, first = site.workers(), guard_of(site), site.main_pid
    with site.load(LOAD) as load:
        for _ in range(2):
            end(site)
            answered(load.result, 20)
            assert site.workers() == workers
    assert not load.result.failed, load.result
    assert {row.pid for row in load.result.rows} <= workers.keys()
    assert site.main_pid != first
    assert guard_of(site) == guard


@pytest.mark.parametrize("end", [killed, restarted])
def test_no_adopted_worker_can_hang_in_accept_because_a_sibling_was_faster(
    site: Site, end: Callable[[Site], None]
) -> None:
    """O_NONBLOCK is the socket's, and systemd changes it when it passes the socket again."""
    before = [nonblocking(site, pid) for pid in site.workers()]
    end(site)
    assert [nonblocking(site, pid) for pid in site.workers()] == before == [True, True]


def test_a_worker_that_wants_a_blocking_socket_has_one_before_and_after_an_adoption(
    machine: Machine,
) -> None:
    site = serving(machine, more='ready = { delay = "100ms" }', fault="hangs")
    before = [nonblocking(site, pid) for pid in site.workers()]
    killed(site)
    assert [nonblocking(site, pid) for pid in site.workers()] == before == [False, False]


def test_a_worker_that_boots_while_there_is_no_manager_has_its_socket_as_it_made_it(
    machine: Machine,
) -> None:
    site = serving(machine, drop_in="RestartSec=1s\n")
    site.deploy("2", fault="waits")
    gate = hold(site)
    begin_reload(site)
    wait_for(lambda: len(site.workers()) == 4, "the workers of generation 2")
    new = list(site.workers())[2:]
    assert not any(nonblocking(site, pid) for pid in new)
    kill(site)
    let_go(gate)
    wait_for(lambda: all(nonblocking(site, pid) for pid in new), "them to boot")
    wait_for(lambda: site.main_pid, "another manager")
    await_ready(site)
    wait_for(lambda: list(site.workers()) == new, "the old workers to end")
    assert all(nonblocking(site, pid) for pid in new)


def nonblocking(site: Site, pid: int) -> bool:
    """Tell whether the listener of a worker, which is its descriptor 3, has O_NONBLOCK."""
    _, flags = site.machine.run("grep", "flags", f"/proc/{pid}/fdinfo/3").stdout.split()
    return bool(int(flags, 8) & os.O_NONBLOCK)


def test_a_reload_works_as_ever_after_an_adoption(site: Site) -> None:
    with site.load(LOAD) as load:
        killed(site)
        site.deploy("2")
        assert site.machine.systemctl("reload", SERVICE, check=False).returncode == 0
        answered(load.result, 20)
        site.deploy("3", fault="exits")
        assert site.machine.systemctl("reload", SERVICE, check=False).returncode == 1
    assert not load.result.failed, load.result
    assert site.get()["version"] == "2"
    assert site.status()["listeners"]["http"]["cutover"] == "steered"


def test_a_worker_that_dies_while_there_is_no_manager_is_replaced(machine: Machine) -> None:
    site = serving(machine, drop_in="RestartSec=1s\n")
    dead, alive = site.workers()
    kill(site)
    site.machine.run("kill", "-KILL", str(dead))
    wait_for(lambda: site.main_pid, "another manager")
    await_ready(site)
    wait_for(lambda: list(site.workers().values()) == ["ready"] * 2, "two workers")
    assert dead not in site.workers()
    assert alive in site.workers()
    assert f"pid={dead} was=ready how='was killed by signal 9 (KILL)'" in site.journal


def test_what_an_adopted_worker_says_reaches_the_journal_under_its_name(site: Site) -> None:
    killed(site)
    site.inside(lambda: ask("/do/die"))
    wait_for(lambda: "died in probation" in said(site, "http@1.1", "http@1.2"), "its last words")
    wait_for(lambda: list(site.workers().values()) == ["ready"] * 2, "its successor")


def said(site: Site, *names: str) -> str:
    """Return what the journal has under these identifiers."""
    site.machine.run("journalctl", "--sync")
    identifiers = [f"--identifier={name}" for name in names]
    return site.machine.run("journalctl", "-q", "-o", "cat", *identifiers).stdout


def ask(path: str) -> bytes:
    """Make a request and wait for its end."""
    with socket.create_connection(("127.0.0.1", 8000), timeout=20) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return client.makefile("rb").read()


# --- In a rollout --------------------------------------------------------------------------------

NOTIFY = 'ready = "notify"'


def begin_reload(site: Site) -> None:
    site.machine.systemctl("reload", "--no-block", SERVICE)


def phase(site: Site) -> str:
    rollout = site.status()["services"]["http"]["rollout"]
    return str(rollout["phase"]) if rollout else ""


def hold(site: Site) -> Path:
    """Have workers of the next version wait until `let_go`."""
    gate = site.directory("http") / "go"
    os.mkfifo(gate)
    return gate


def let_go(gate: Path) -> None:
    fd = os.open(gate, os.O_RDWR)  # whoever waits has a writer now
    gate.unlink()
    os.close(fd)


def test_a_rollout_whose_workers_boot_is_finished_by_the_next_manager(machine: Machine) -> None:
    site = serving(machine, more=NOTIFY, fault="says ready")
    site.deploy("2", fault="waits for go")
    gate = hold(site)
    with site.load(LOAD) as load:
        begin_reload(site)
        wait_for(lambda: len(site.workers()) == 4, "the workers of generation 2")
        before = site.workers()
        killed(site)
        assert site.workers() == before
        let_go(gate)
        wait_for(lambda: "committed service=http generation=2" in site.journal, "the verdict")
        answered(load.result, 20)
    assert not load.result.failed, load.result
    assert site.get()["version"] == "2"


def test_a_rollout_whose_workers_do_not_boot_is_rolled_back_by_the_next_manager(
    machine: Machine,
) -> None:
    site = serving(machine, more=f'{NOTIFY}\nready_timeout = "5s"', fault="says ready")
    before = site.workers()
    site.deploy("2", fault="hangs")
    with site.load(LOAD) as load:
        begin_reload(site)
        wait_for(lambda: len(site.workers()) == 4, "the workers of generation 2")
        killed(site)
        wait_for(lambda: site.workers() == before, "the end of the rollout")
    assert not load.result.failed, load.result
    assert "aborted" in site.journal
    assert site.get()["version"] == "1"


PROBATION = '[service.SERVICE.rollout]\nprobation = "5s"'


def test_a_rollout_on_probation_is_committed_by_the_next_manager(machine: Machine) -> None:
    site = serving(machine, more=PROBATION)
    site.deploy("2")
    with site.load(LOAD) as load:
        begin_reload(site)
        wait_for(lambda: phase(site) == "probation", "probation")
        killed(site)
        wait_for(lambda: phase(site) == "", "the end of probation")
        answered(load.result, 20)
    assert not load.result.failed, load.result
    assert site.status()["services"]["http"]["generation"] == 2
    assert site.get()["version"] == "2"


def test_a_rollout_on_probation_is_rolled_back_by_the_next_manager_if_a_worker_dies(
    machine: Machine,
) -> None:
    site = serving(machine, more=PROBATION.replace("5s", "1h"))
    before = site.workers()
    site.deploy("2")
    begin_reload(site)
    wait_for(lambda: phase(site) == "probation", "probation")
    killed(site)
    assert site.get()["version"] == "2"
    site.inside(lambda: ask("/do/die"))
    wait_for(lambda: site.workers() == before, "the old workers alone")
    assert site.get()["version"] == "1"


def test_a_worker_that_drains_keeps_the_connection_in_its_hand_over_a_crash(site: Site) -> None:
    old = site.workers()
    with site.inside(lambda: socket.create_connection(("127.0.0.1", 8000))) as client:
        site.deploy("2")
        site.machine.systemctl("reload", SERVICE)
        wait_for(lambda: "draining" in site.workers().values(), "the drain")
        killed(site)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = client.makefile("rb").read()
    assert b'"version": "1"' in answer
    wait_for(lambda: not old.keys() & site.workers().keys(), "the end of the old workers")
    assert "worker killed" not in site.journal


def test_a_worker_that_does_not_drain_is_killed_at_its_deadline_by_the_next_manager(
    machine: Machine,
) -> None:
    site = serving(machine, more='drain_timeout = "5s"', fault="is deaf")
    site.deploy("2")
    site.machine.systemctl("reload", SERVICE)
    killed(site)
    assert "draining" in site.workers().values()
    wait_for(lambda: list(site.workers().values()) == ["ready"] * 2, "the end of the deaf")
    assert site.journal.count("worker killed") == 2
    assert site.get()["version"] == "2"


# --- Another config ------------------------------------------------------------------------------


def test_a_config_that_was_changed_meanwhile_is_rolled_out_after_the_adoption(site: Site) -> None:
    old = site.workers()
    text = site.machine.run("cat", site.config).stdout
    site.machine.write(site.config, text.replace("workers = 2", "workers = 3"))
    site.deploy("2")
    with site.load(LOAD) as load:
        killed(site)
        wait_for(lambda: list(site.workers().values()) == ["ready"] * 3, "three workers")
        answered(load.result, 20)
    assert not load.result.failed, load.result
    assert {row.version for row in load.result.rows} == {"1", "2"}
    assert not old.keys() & site.workers().keys()
    assert site.status()["services"]["http"]["generation"] == 2


def test_a_config_that_was_broken_meanwhile_is_told_and_what_ran_goes_on(site: Site) -> None:
    before = site.workers()
    text = site.machine.run("cat", site.config).stdout
    site.machine.write(site.config, "name = ")
    killed(site)
    wait_for(lambda: "reload refused" in status_text(site), "the reason")
    assert "shop.toml:1:8: this is not TOML" in status_text(site)
    site.machine.write(site.config, text)
    assert site.workers() == before
    assert site.get()["version"] == "1"
    site.deploy("2")
    site.machine.systemctl("reload", SERVICE)
    assert site.get()["version"] == "2"


def status_text(site: Site) -> str:
    return site.machine.property(SERVICE, "StatusText")


# --- Little room ---------------------------------------------------------------------------------


def test_an_fd_store_that_is_too_small_is_told_and_costs_no_request(
    machine: Machine,
) -> None:
    site = serving(machine, drop_in="FileDescriptorStoreMax=4\n")
    before = site.workers()
    assert "fd store full" in status_text(site)
    assert "raise FileDescriptorStoreMax=" in site.journal
    with site.load(LOAD) as load:
        killed(site)
        # There was no room for the streams that they print to, but they have those themselves.
        answered(load.result, 20)
        assert site.workers() == before
    assert not load.result.failed, load.result
    assert site.journal.count("worker adopted") == 2
