"""`sockmgr doctor` on a machine that systemd runs: nothing wrong, and then something."""

from __future__ import annotations

import pytest

from tests.doctor.diagnosis import Found, agreed
from tests.e2e.harness import wait_for
from tests.systemd.machine import PYTHON, Machine
from tests.systemd.site import Site

LISTEN = {"http": "tcp://127.0.0.1:8000", "admin": "unix:///run/shop-admin.sock"}
AS_USER = ("setpriv", "--reuid=sockmgr", "--regid=sockmgr", "--init-groups")


def diagnose(machine: Machine, config: str, *before: str) -> Found:
    """Return what the doctor says, called by root or behind `before`."""
    done = machine.run(*before, "sockmgr", "doctor", "--json", "-c", config, check=False)
    return agreed(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("users", [None, {"http": "www-data", "admin": "nobody"}])
def test_installed_units_and_what_they_run_have_no_fault(
    machine: Machine, users: dict[str, str] | None
) -> None:
    site = Site(machine, LISTEN, users=users)
    site.install()
    assert diagnose(machine, site.config) == []
    site.start()
    assert diagnose(machine, site.config) == []
    machine.systemctl("reload", "shop.service")
    assert diagnose(machine, site.config) == []
    told = machine.run("sockmgr", "doctor", "-c", site.config).stdout
    assert "shop.service, shop-admin.socket, shop-http.socket, manager " in told


def test_the_user_of_the_manager_sees_as_much_as_root(machine: Machine) -> None:
    site = Site(machine, LISTEN)
    site.install()
    site.deploy("1", fault="is deaf")
    site.start()
    seen = diagnose(machine, site.config)
    assert [one["check"] for one in seen] == ["stop-signal"]
    assert diagnose(machine, site.config, *AS_USER) == seen


def test_a_unit_that_is_started_again_and_again_is_found(machine: Machine) -> None:
    site = Site(machine, LISTEN)
    site.install()
    site.drop_in("[Service]\nExecStartPre=false\nRestartSec=1h\n")
    machine.systemctl("start", "shop.service", check=False)
    (found,) = diagnose(machine, site.config)
    assert found["check"] == "unit-fails"
    assert found["what"].startswith("shop.service does not stay")
    assert "journalctl -u shop.service" in found["fix"]


def test_a_manager_that_may_not_ask_workers_alone_is_found_by_doctor_and_check(
    machine: Machine,
) -> None:
    site = Site(machine, {"http": LISTEN["http"]})
    site.install()
    site.start()
    site.write(f'{site.text}ready = {{ exec = ["true"] }}\n')
    found = [one["check"] for one in diagnose(machine, site.config)]
    told = machine.run("sockmgr", "check", "-c", site.config).stdout
    lacks = "order of adopted queues not confirmed" in site.journal  # some kernels show it
    assert found == ["unit-outdated", *(["no-way-to-workers"] if lacks else [])]
    assert ("  warning: the manager cannot ask the workers of http alone" in told) == lacks
    site.install()
    machine.systemctl("restart", "shop.service")
    assert diagnose(machine, site.config) == []
    assert "warning" not in machine.run("sockmgr", "check", "-c", site.config).stdout


def test_workers_that_the_sandbox_lets_not_compile_are_found_by_their_words_in_the_journal(
    machine: Machine,
) -> None:
    program = (
        "import mmap\n"
        "try: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "except OSError: exit('Cannot allocate write+execute memory for ffi.callback()')\n"
        "__import__('signal').pause()\n"
    )
    site = Site(machine, {"http": LISTEN["http"]}, command=(PYTHON, "-c", program))
    site.install()
    machine.systemctl("start", "--no-block", "shop.service")
    wait_for(lambda: is_down(site), "a failed start")
    found = diagnose(machine, site.config)
    assert [one["check"] for one in found] == ["service-down", "code-refused"]
    assert "MemoryDenyWriteExecute=no below [Service]" in found[1]["fix"]


def is_down(site: Site) -> bool:
    """Tell whether the manager answers, and no worker of it serves."""
    done = site.machine.run("sockmgr", "status", "--json", "-c", site.config, check=False)
    return '"state": "down"' in done.stdout


def test_a_sandbox_without_netlink_is_found(machine: Machine) -> None:
    site = Site(machine, LISTEN)
    site.install()
    site.drop_in("[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET\n")
    assert [one["check"] for one in diagnose(machine, site.config)] == ["unit-netlink"]
