"""The doctor finds limits that workers cannot have: here, by a unit, by a manager that runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sockmgr.config.config import parse
from sockmgr.doctor import resources
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.unit_files import of_text
from sockmgr.kernel.delegation import LEAF, Delegation
from sockmgr.launch.unlimited import unlimited
from tests.doctor.diagnosis import agreed
from tests.e2e.harness import Manager
from tests.helpers.cgroups import pretended
from tests.helpers.command_line import sockmgr

LIMITS = '[service.web.resources]\nmemory_max = "512M"\npids_max = 100\n'
SERVICES = parse(f'[service.web]\ncommand = ["x"]\n{LIMITS}'.encode(), file="shop.toml").services
NO_LIMITS = parse(b'[service.web]\ncommand = ["x"]\n', file="shop.toml").services


def of_unit(lines: str, version: int | None = 255) -> list[Finding]:
    text = f"[Service]\n{lines}\n"
    return list(resources.of_unit(of_text("shop.service", text), SERVICES, version))


@pytest.mark.parametrize(
    ("lines", "version", "what", "fix"),
    [
        ("", 255, "there is no Delegate=", "Delegate=yes"),
        ("Delegate=no", 255, "there is no Delegate=", "Delegate=yes"),
        ("Delegate=yes\nProtectControlGroups=yes", 255, "ProtectControlGroups=", "=no"),
        ("Delegate=yes", 255, "there is no DelegateSubgroup=", "DelegateSubgroup=manager"),
        ("Delegate=yes", None, "there is no DelegateSubgroup=", "DelegateSubgroup=manager"),
        ("Delegate=yes\nDelegateSubgroup=manager", 252, "systemd 252 has no", "systemd 254"),
    ],
)
def test_a_unit_in_which_workers_can_have_no_limits_is_found(
    lines: str, version: int | None, what: str, fix: str
) -> None:
    (found,) = of_unit(lines, version)
    assert found.check is Check.UNIT_DELEGATE
    assert what in found.what
    assert fix in found.fix


def test_a_unit_that_has_all_it_needs_has_no_fault() -> None:
    assert of_unit("Delegate=cpu memory pids\nDelegateSubgroup=manager") == []
    assert list(resources.of_unit(of_text("shop.service", ""), NO_LIMITS, 252)) == []


@pytest.mark.parametrize(
    ("controllers", "leaf", "told"),
    [
        ("memory pids", "manager", []),
        ("memory", "manager", ["pids_max: no effect: there is no pids controller"]),
        ("", "manager", ["memory_max: no effect: there is no", "pids_max: no effect: there is no"]),
        ("memory pids", LEAF, ["memory_max, pids_max: no effect: systemd could not start"]),
    ],
)
def test_limits_without_a_controller_are_found(
    tmp_path: Path, controllers: str, leaf: str, told: list[str]
) -> None:
    path = pretended(tmp_path / "shop.service", leaf=leaf, controllers=controllers)
    ours = Delegation(path=path, leaf=path / leaf)
    found = list(resources.examine(SERVICES, Check.NO_CONTROLLER, ours))
    assert len(found) == len(told)
    for one, text in zip(found, told, strict=True):
        assert one.what.startswith(f"service.web.resources: {text}")
    assert list(resources.examine(NO_LIMITS, Check.NO_CONTROLLER, ours)) == []


SERVER = "import socket\nwhile True:\n    socket.socket(fileno=3).accept()\n"


def config_of(directory: Path) -> str:
    """Return the config of a service with limits."""
    (directory / "server.py").write_text(SERVER)
    command = [sys.executable, "-S", "-E", str(directory / "server.py")]
    listen = '[listen]\nhttp = "tcp://127.0.0.1:0"\n'
    return f"{listen}[service.web]\ncommand = {command}\n{LIMITS}"


def test_check_says_the_same_of_this_machine_as_the_doctor(tmp_path: Path) -> None:
    config = tmp_path / "sockmgr.toml"
    config.write_text(config_of(tmp_path))
    told = sockmgr("check", "-c", str(config)).stdout
    expected = [f"warning: {keys}: no effect here: {why}" for keys, why in unlimited(SERVICES[0])]
    assert [line.strip() for line in told.splitlines() if "resources" in line] == expected


def test_a_manager_that_cannot_put_limits_in_force_is_found(tmp_path: Path) -> None:
    with Manager(tmp_path, config_of(tmp_path)) as manager:
        about = ("-c", str(manager.config), "--control", str(manager.control))
        result = sockmgr("doctor", "--json", *about)
        found = agreed(result.exit_code, result.stdout, result.stderr)
        limits = [one for one in found if one["check"] == Check.NOT_LIMITED.label]
        assert [one["subject"] for one in limits] == ["service.web.resources"]
        assert "none was delegated to the manager (Delegate=yes)" in limits[0]["what"]
