"""Sockets of systemd that cannot be there yet: of a listener that came later, of an address."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import pytest

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.mishaps import LOAD, answered, killed, restarted
from tests.systemd.site import SERVICE, SYSUSERS, Site

HTTP = {"http": "tcp://127.0.0.1:8000"}
ADMIN = 8001


@pytest.fixture
def grown(machine: Machine) -> Site:
    """Return a site whose manager opened a second listener itself, and then got units for it."""
    return grow(Site(machine, HTTP), f"tcp://127.0.0.1:{ADMIN}")


def grow(site: Site, address: str) -> Site:
    """Start a site, have a reload open a listener, and install the unit that this has now."""
    machine = site.machine
    site.install()
    site.start()
    text = machine.run("cat", site.config).stdout
    text = text.replace("[service.http]", f'admin = "{address}"\n[service.http]')
    machine.write(site.config, text.replace('["http"]', '["http", "admin"]'))
    machine.systemctl("reload", SERVICE)
    machine.run("sockmgr", "units", "--install", "-c", site.config)
    machine.systemctl("daemon-reload")
    return site


# --- A listener that the manager holds itself ----------------------------------------------------


@pytest.mark.parametrize("end", [killed, restarted])
def test_units_installed_while_the_manager_holds_a_listener_itself_do_not_take_the_service_down(
    grown: Site, end: Callable[[Site], None]
) -> None:
    workers = set(grown.workers())
    with grown.load(LOAD) as load, grown.load(LOAD, port=ADMIN) as more:
        end(grown)
        answered(load.result, 50)
        answered(more.result, 50)
    assert not load.result.failed
    assert not more.result.failed
    assert set(grown.workers()) == workers
    assert grown.machine.property(SERVICE, "ActiveState") == "active"


def test_a_service_that_nobody_calls_is_up_after_that_crash_too(grown: Site) -> None:
    workers = set(grown.workers())
    killed(grown)
    assert set(grown.workers()) == workers


@pytest.mark.parametrize("end", [killed, restarted])
def test_sockets_that_systemd_could_bind_beside_those_of_a_root_manager_mislead_no_connection(
    machine: Machine, end: Callable[[Site], None]
) -> None:
    """They are in the group of the manager's: a queue that comes later has a place behind them."""
    site = Site(machine, HTTP)
    site.drop_in("[Service]\nUser=root\nRestartSec=100ms\n")
    grow(site, f"tcp://127.0.0.1:{ADMIN}")
    with site.inside(lambda: socket.create_connection(("127.0.0.1", ADMIN))) as client:
        client.sendall(b"GET / HTTP/1.0\r\n")  # keeps its worker, and with it a queue, in the drain
        with site.load(LOAD, port=ADMIN) as load:
            end(site)
            for _ in range(2):
                machine.systemctl("reload", SERVICE)
                answered(load.result, 20)
    assert not load.result.failed
    assert machine.property("shop-admin.socket", "SubState") == "running"
    assert site.status()["listeners"]["admin"]["cutover"] == "steered"


def committed(site: Site) -> bool:
    """Whether no worker is left but those of the generation that serves, all of them ready."""
    service = site.status()["services"]["http"]
    of = {worker["generation"] for worker in service["workers"]}
    return bool(service["state"] == "serving" and of == {service["generation"]})


@pytest.mark.parametrize("end", [killed, restarted])
def test_a_unix_path_that_systemd_took_over_is_answered_by_new_workers(
    machine: Machine, end: Callable[[Site], None]
) -> None:
    machine.run("systemd-sysusers", SYSUSERS)
    machine.run("install", "-d", "-o", "sockmgr", "/run/shop-admin")
    site = Site(machine, HTTP)
    site.drop_in("[Service]\nReadWritePaths=/run/shop-admin\nRestartSec=100ms\n")
    path = "/run/shop-admin/admin.sock"
    grow(site, f"unix://{path}?mode=0666")
    for generation in (3, 3):
        end(site)
        for _ in range(20):
            machine.run("curl", "-sSf", "-m", "20", "--unix-socket", path, "http://shop/")
        # The new workers answer before their rollout has outlived its probation.
        wait_for(partial(committed, site), "the rollout to be committed")
        assert site.status()["services"]["http"]["generation"] == generation
    assert machine.property("shop-admin.socket", "SubState") == "running"


def test_the_socket_takes_its_address_over_at_the_next_stop_and_start(grown: Site) -> None:
    restarted(grown)
    grown.machine.systemctl("stop", SERVICE)
    grown.machine.systemctl("start", SERVICE)
    assert grown.machine.property("shop-admin.socket", "SubState") == "running"
    assert grown.get(ADMIN)["version"] == "1"


def test_who_stops_the_socket_closes_the_port_and_ends_the_service(machine: Machine) -> None:
    site = Site(machine, HTTP)
    site.install()
    site.start()
    machine.systemctl("stop", "shop-http.socket")
    wait_for(lambda: machine.property(SERVICE, "ActiveState") == "inactive", "its end")
    with pytest.raises(ConnectionRefusedError):
        site.get()


# --- An address that is not there ----------------------------------------------------------------

VIRTUAL = {"http": "tcp://127.0.0.1:8000", "vip": "tcp://10.99.0.1:8001"}


def test_an_address_that_is_not_there_yet_keeps_no_other_service_from_serving(
    machine: Machine,
) -> None:
    site = Site(machine, VIRTUAL)
    machine.write("/etc/systemd/system/shop-vip.socket.d/late.conf", "[Socket]\nFreeBind=yes\n")
    site.install()
    site.start()
    assert site.get()["version"] == "1"
    assert "this host does not have the address" in site.journal
    assert "Traceback" not in site.journal
    machine.systemctl("reload", SERVICE)
    machine.run("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
    machine.run("curl", "-sSf", "-m", "10", "http://10.99.0.1:8001/")


def test_an_address_that_goes_away_forbids_neither_a_reload_nor_a_stop_and_start(
    machine: Machine,
) -> None:
    machine.run("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
    site = Site(machine, VIRTUAL)
    site.install()
    site.start()
    machine.run("ip", "addr", "del", "10.99.0.1/32", "dev", "lo")
    site.deploy("2")
    machine.systemctl("reload", SERVICE)
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", SERVICE)
    assert site.get()["version"] == "2"
    machine.run("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
    machine.run("curl", "-sSf", "-m", "10", "http://10.99.0.1:8001/")
