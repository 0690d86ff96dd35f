"""Sockets of systemd that cannot be there yet: of a listener that came later, of an address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.harness import wait_for
from tests.systemd.machine import Machine
from tests.systemd.site import SERVICE, Site
from tests.systemd.test_adoption import LOAD, answered, killed, restarted

HTTP = {"http": "tcp://127.0.0.1:8000"}
ADMIN = 8001


@pytest.fixture
def grown(machine: Machine) -> Site:
    """Return a site whose manager opened a second listener itself, and then got units for it."""
    site = Site(machine, HTTP)
    site.install()
    site.start()
    text = machine.run("cat", site.config).stdout
    text = text.replace("[service.http]", f'admin = "tcp://127.0.0.1:{ADMIN}"\n[service.http]')
    machine.write(site.config, text.replace('["http"]', '["http", "admin"]'))
    machine.systemctl("reload", SERVICE)
    assert site.get(ADMIN)["version"] == "1"
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
