"""The manager as a service of a real systemd, with the units that `sockmgr units` writes."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sockmgr.torture.load.result import Outcome
from tests.e2e.harness import wait_for
from tests.helpers.load import Result
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.site import SERVICE, Site

HTTP = {"http": "tcp://127.0.0.1:8000"}
LOAD = "short:rate=100"


@pytest.fixture
def idle(machine: Machine) -> Site:
    """Return a site with one TCP listener, whose socket listens. No manager runs."""
    site = Site(machine, HTTP)
    site.install()
    return site


@pytest.fixture
def site(idle: Site) -> Site:
    """Return a site that serves version 1."""
    idle.start()
    return idle


def refused(result: Result) -> int:
    return sum(row.outcome is Outcome.REFUSED for row in result.rows)


def answered_after(result: Result, number: int) -> bool:
    return sum(row.outcome is Outcome.OK for row in list(result.rows)) > number


# --- Sockets -------------------------------------------------------------------------------------


def test_the_first_connection_starts_the_manager_and_is_answered(idle: Site) -> None:
    assert idle.machine.property(SERVICE, "ActiveState") == "inactive"
    assert idle.get()["version"] == "1"
    who = idle.machine.run("ps", "-o", "user=", "-p", str(idle.main_pid)).stdout.strip()
    assert who == "sockmgr"


def test_connections_that_come_before_the_manager_are_answered_whatever_their_queue(
    idle: Site,
) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(idle.get) for _ in range(12)]
    assert [answer.result()["version"] for answer in answers] == ["1"] * 12
    wait_for(lambda: len(idle.status()["services"]["http"]["workers"]) == 2, "the rescuers to go")


def test_sockets_of_two_units_are_told_apart_by_name(machine: Machine) -> None:
    site = Site(machine, {"http": "tcp://127.0.0.1:8000", "admin": "tcp://127.0.0.1:8001"})
    site.install()
    site.deploy("shop", service="http")
    site.deploy("back office", service="admin")
    assert site.get(8001)["version"] == "back office"
    assert site.get(8000)["version"] == "shop"


def test_services_of_several_users_have_a_manager_that_is_root_and_little_more(
    machine: Machine,
) -> None:
    site = Site(
        machine,
        {"http": "tcp://127.0.0.1:8000", "admin": "tcp://127.0.0.1:8001"},
        users={"http": "sockmgr", "admin": "daemon"},
    )
    site.install()
    site.start()
    for port, service, user in ((8000, "http", "sockmgr"), (8001, "admin", "daemon")):
        pid = str(site.get(port)["pid"])
        assert machine.run("ps", "-o", "user=", "-p", pid).stdout.strip() == user
        site.deploy("2", service=service)
    machine.systemctl("reload", SERVICE)
    assert [site.get(port)["version"] for port in (8000, 8001)] == ["2", "2"]
    cutovers = {one["cutover"] for one in site.status()["listeners"].values()}
    assert cutovers == {"steered"}


def test_a_socket_that_no_listener_is_named_after_is_told_in_the_journal(idle: Site) -> None:
    idle.machine.write(
        "/etc/systemd/system/other.socket",
        f"[Socket]\nListenStream=127.0.0.1:8009\nFileDescriptorName=other\nService={SERVICE}\n",
    )
    idle.machine.systemctl("daemon-reload")
    idle.machine.systemctl("start", "other.socket")
    idle.machine.systemctl("start", "--no-block", SERVICE)
    wait_for(lambda: "no listener is named after: other" in idle.journal, "the reason")
    assert "the config names http" in idle.journal
    assert "FileDescriptorName=" in idle.journal


# --- Reloads -------------------------------------------------------------------------------------


def test_a_cut_over_is_steered_though_the_sockets_belong_to_root(site: Site) -> None:
    with site.load(LOAD) as load:
        for version in ("2", "3"):
            site.deploy(version)
            site.machine.systemctl("reload", SERVICE)
            wait_for(lambda: answered_after(load.result, 50), "requests to be answered")
    assert not load.result.failed
    assert {row.version for row in load.result.rows} >= {"1", "3"}
    assert site.status()["listeners"]["http"]["cutover"] == "steered"
    assert site.status()["services"]["http"]["generation"] == 3


def test_systemctl_reload_succeeds_if_the_new_version_serves(site: Site) -> None:
    site.deploy("2")
    assert site.machine.systemctl("reload", SERVICE, check=False).returncode == 0
    assert site.get()["version"] == "2"


def test_systemctl_reload_fails_if_the_deploy_is_broken_and_what_served_goes_on(
    site: Site,
) -> None:
    pid = site.main_pid
    site.deploy("2", fault="exits")
    assert site.machine.systemctl("reload", SERVICE, check=False).returncode == 1
    assert site.machine.property(SERVICE, "ActiveState") == "active"
    assert site.main_pid == pid
    assert site.get()["version"] == "1"
    assert "cannot reach the database" in site.journal


def test_systemctl_reload_fails_if_the_config_cannot_be_read(site: Site) -> None:
    site.machine.write(site.config, "name = ")
    assert site.machine.systemctl("reload", SERVICE, check=False).returncode == 1
    assert site.get()["version"] == "1"


def test_a_reload_for_which_systemd_passed_too_few_queues_fails_and_what_served_goes_on(
    idle: Site,
) -> None:
    idle.machine.systemctl("stop", "shop-http.socket")
    two = "ListenStream=127.0.0.1:8000\n" * 2
    idle.machine.write(
        "/etc/systemd/system/shop-http.socket.d/two.conf", f"[Socket]\nListenStream=\n{two}"
    )
    idle.machine.systemctl("daemon-reload")
    idle.machine.systemctl("start", "shop-http.socket", SERVICE)
    # Whoever has this in hand drains until it says something.
    with idle.inside(lambda: socket.create_connection(("127.0.0.1", 8000))):
        idle.deploy("2")
        idle.machine.systemctl("reload", SERVICE)
        idle.deploy("3")
        assert idle.machine.systemctl("reload", SERVICE, check=False).returncode == 1
        assert idle.get()["version"] == "2"
    assert "cannot open another queue" in idle.journal


def test_notify_reload_waits_until_the_new_version_serves(machine: Machine) -> None:
    if machine.version < 253:
        pytest.skip(f"systemd {machine.version} does not know Type=notify-reload")
    site = Site(machine, HTTP)
    site.install(notify_reload=True)
    site.start()
    site.deploy("2")
    machine.systemctl("reload", SERVICE)
    assert site.get()["version"] == "2"


# --- The life of the manager ---------------------------------------------------------------------


def test_a_restart_of_the_service_replaces_the_manager_and_a_reload_the_workers(
    site: Site,
) -> None:
    first = site.main_pid
    with site.load(LOAD) as load:
        site.deploy("2")
        site.machine.systemctl("restart", SERVICE)
        assert site.main_pid != first
        assert site.get()["version"] == "1"
        site.machine.systemctl("reload", SERVICE)
        wait_for(lambda: answered_after(load.result, 100), "requests to be answered")
    assert not load.result.failed
    assert site.get()["version"] == "2"


def test_no_connection_is_refused_or_lost_when_the_service_is_stopped(site: Site) -> None:
    first = site.main_pid
    with site.load(LOAD) as load:
        site.machine.systemctl("stop", SERVICE)
        # The next connection starts it again.
        wait_for(lambda: site.main_pid not in (0, first), "another manager")
        wait_for(lambda: answered_after(load.result, 50), "requests to be answered")
    assert not load.result.failed


def test_nothing_is_left_and_nothing_listens_when_service_and_socket_are_stopped(
    site: Site,
) -> None:
    site.machine.systemctl("stop", "shop-http.socket", SERVICE)
    with pytest.raises(ConnectionRefusedError):
        site.get()
    assert site.machine.run("ps", "-u", "sockmgr", check=False).returncode == 1


def test_the_workers_of_a_manager_that_is_killed_drain_if_no_other_comes(site: Site) -> None:
    site.drop_in("[Service]\nRestartSec=1h\n")
    with site.inside(lambda: socket.create_connection(("127.0.0.1", 8000))) as client:
        client.sendall(b"GET / HTTP/1.0\r\n")
        site.machine.run("kill", "-KILL", str(site.main_pid))
        wait_for(lambda: site.machine.property(SERVICE, "SubState") == "auto-restart", "its end")
        assert site.get()["version"] == "1"
        site.machine.systemctl("stop", "shop-http.socket", SERVICE)
        wait_for(lambda: "signal sent" in site.journal, "the guard")
        client.sendall(b"\r\n")  # a worker that drains answers what it has in hand
        assert b'"version": "1"' in client.makefile("rb").read()
    wait_for(lambda: site.machine.run("ps", "-u", "sockmgr", check=False).returncode, "nobody")
    assert "nothing is left" in site.journal


def test_a_manager_that_hangs_is_restarted_by_the_watchdog(idle: Site) -> None:
    idle.drop_in("[Service]\nWatchdogSec=1s\nRestartSec=100ms\n")
    idle.start()
    hung = idle.main_pid
    idle.machine.run("kill", "-STOP", str(hung))
    wait_for(lambda: idle.main_pid not in (0, hung), "another manager")
    assert idle.get()["version"] == "1"
    assert "Watchdog timeout" in idle.journal


def test_a_manager_that_works_is_not_restarted_by_the_watchdog(idle: Site) -> None:
    idle.drop_in("[Service]\nWatchdogSec=500ms\n")
    idle.start()
    idle.deploy("2")
    idle.machine.systemctl("reload", SERVICE)
    entered = _monotonic(idle, "ActiveEnterTimestampMonotonic")
    wait_for(lambda: _now(idle) > entered + 2_000_000, "four times the watchdog's limit")
    assert idle.machine.property(SERVICE, "NRestarts") == "0"


# --- What `sockmgr units` installs, and what is shipped -------------------------------------------


def test_sockmgr_units_installs_what_serves_at_once(machine: Machine) -> None:
    site = Site(machine, HTTP)
    machine.run("sockmgr", "units", "--install", "-c", site.config)
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", "--now", "shop-http.socket", SERVICE)
    assert site.get()["version"] == "1"
    assert site.status()["listeners"]["http"]["cutover"] == "steered"
    again = machine.run("sockmgr", "units", "--install", "-c", site.config).stdout
    assert "written" not in again


def test_a_listener_that_is_added_comes_with_one_restart_and_the_others_stay_open(
    machine: Machine,
) -> None:
    """systemd starts no socket whose service runs; a restart starts those that it requires."""
    site = Site(machine, HTTP)
    site.install()
    site.start()
    text = machine.run("cat", site.config).stdout
    text = text.replace("[service.http]", 'admin = "tcp://127.0.0.1:8001"\n[service.http]')
    machine.write(site.config, text.replace('["http"]', '["http", "admin"]'))
    with site.load(LOAD) as load:
        machine.run("sockmgr", "units", "--install", "-c", site.config)
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", SERVICE)
        wait_for(lambda: site.status()["services"]["http"]["generation"] == 2, "the new config")
    assert site.get(8001)["version"] == "1"
    assert not load.result.failed


def test_the_shipped_pair_serves(machine: Machine) -> None:
    site = Site(machine, HTTP, name="sockmgr")
    _install_shipped(machine, "sockmgr.socket", "sockmgr.service")
    machine.systemctl("start", "sockmgr.socket", "sockmgr.service")
    assert site.get()["version"] == "1"
    assert "2/2 workers" in machine.property("sockmgr.service", "StatusText")
    machine.systemctl("reload", "sockmgr.service")
    assert site.status()["listeners"]["http"]["cutover"] == "steered"


def test_an_instance_of_the_template_serves_on_a_unix_socket_and_is_found_by_its_config(
    machine: Machine,
) -> None:
    site = Site(machine, {"http": "unix:///run/sockmgr-shop.http.sock"})
    _install_shipped(machine, "sockmgr@.socket", "sockmgr@.service")
    machine.systemctl("start", "sockmgr@shop.socket")
    client = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(20); "
        "s.connect('/run/sockmgr-shop.http.sock'); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); "
        "print(s.makefile().read())"
    )
    answer = machine.run("env", "LD_LIBRARY_PATH=/srv/base/lib", PYTHON, "-c", client).stdout
    assert '"version": "1"' in answer
    # One worker has answered; the other may still boot.
    wait_for(lambda: site.status()["services"]["http"]["state"] == "serving", "all workers")


# --- The machine itself --------------------------------------------------------------------------


def test_a_member_of_a_group_finds_the_manager_of_a_unit_by_its_config(machine: Machine) -> None:
    site = Site(machine, HTTP)
    site.write(site.text + '\n[control]\ngroup = "users"\nmethods = ["reload"]\n')
    site.install()
    site.deploy("1")
    site.start()
    member = ("setpriv", "--reuid=nobody", "--regid=users", "--clear-groups", "sockmgr")
    for verb in ("status", "check", "reload", "health"):
        machine.run(*member, verb, "-c", site.config)
    stop = machine.run(*member, "stop", "-c", site.config, check=False)
    assert (stop.returncode, "[control]" in stop.stderr) == (1, True), stop.stderr


def test_a_machine_leaves_no_process_no_mount_no_cgroup_and_no_file(machine: Machine) -> None:
    with Machine() as other:
        other.systemctl("is-active", "multi-user.target")
        marks = (str(other.shared), other.shared.name)
        inside = Path(f"/proc/{other.pid}/ns/pid").readlink()
        assert any(marks[1] in line for line in _cgroups())
    assert not other.shared.exists()
    assert not any(marks[0] in line for line in Path("/proc/self/mounts").read_text().splitlines())
    assert not any(marks[1] in line for line in _cgroups())
    assert inside not in _pid_namespaces()
    assert machine.systemctl("is-active", "multi-user.target").returncode == 0


# --- Helpers -------------------------------------------------------------------------------------


def _install_shipped(machine: Machine, *names: str) -> None:
    paths = [f"/srv/checkout/contrib/systemd/{name}" for name in names]
    machine.run("cp", *paths, "/etc/systemd/system")
    machine.systemctl("daemon-reload")


def _monotonic(site: Site, name: str) -> int:
    return int(site.machine.property(SERVICE, name))


def _now(site: Site) -> float:
    return float(site.machine.run("cat", "/proc/uptime").stdout.split()[0]) * 1e6


def _cgroups() -> list[str]:
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            found += [str(path) for path in Path(point).rglob("sockmgr-machine-*")]
    return found


def _pid_namespaces() -> set[Path]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            found.add((entry / "ns" / "pid").readlink())
        except OSError:  # no process, or gone
            continue
    return found
