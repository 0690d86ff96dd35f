"""The doctor finds each fault that is planted in installed units, and none in those we write."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from sockmgr.doctor import units
from sockmgr.doctor.finding import Check
from sockmgr.doctor.unit_files import given_config
from tests.doctor.diagnosis import Found, diagnose, sole
from tests.e2e.apps import ROOT
from tests.helpers.command_line import sockmgr

CONFIG = f"""\
name = "shop"
[listen]
http = "tcp://127.0.0.1:8000"
admin = "unix:///run/shop-admin.sock"
[service.web]
command = ["{sys.executable}", "-m", "http.server"]
cwd = "/"
listen = ["http", "admin"]
"""


class Machine:
    """A directory of units that belong to a config."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.units = config.parent / "units"
        config.write_text(CONFIG)

    def install(self, *options: str) -> None:
        """Write the units that fit the config, for a user that there is everywhere."""
        about = (f"--dir={self.units}", "--systemd=252", "--user=root", *options)
        assert sockmgr("units", "-c", str(self.config), "--install", *about).exit_code == 0

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit as `systemctl edit` does."""
        folder = self.units / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "override.conf").write_text(text)

    def configure(self, old: str, new: str) -> None:
        """Change the config."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def diagnose(self, *options: str) -> Found:
        """Return what the doctor says of it."""
        return diagnose(self.config, f"--units={self.units}", *options)


@pytest.fixture
def machine(config: Path) -> Machine:
    return Machine(config)


# --- Units in which nothing is wrong -------------------------------------------------------------


@pytest.mark.parametrize("systemd", [252, 255])
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_units_that_we_write_have_no_fault(machine: Machine, user: str, systemd: int) -> None:
    machine.install(f"--systemd={systemd}", f"--user={user}")
    assert machine.diagnose() == []


def test_a_drop_in_for_notify_reload_is_no_fault_where_systemd_knows_it(machine: Machine) -> None:
    machine.install("--systemd=253", "--notify-reload")
    assert machine.diagnose("--systemd=253") == []


@pytest.mark.parametrize("name", ["sockmgr", "sockmgr@shop"])
def test_the_units_in_contrib_have_no_fault(machine: Machine, name: str) -> None:
    template = "@" in name
    address = "unix:///run/sockmgr-shop.http.sock" if template else "tcp://127.0.0.1:8000"
    machine.config.rename(machine.config.with_name("shop.toml"))
    machine.config = machine.config.with_name("shop.toml")
    machine.config.write_text(
        re.sub(r"http = .*\nadmin = .*\n", f'http = "{address}"\n', CONFIG).replace(
            'listen = ["http", "admin"]\n', ""
        )
    )
    machine.units.mkdir()
    for kind in ("service", "socket"):
        file = f"sockmgr@.{kind}" if template else f"sockmgr.{kind}"
        text = (ROOT / "contrib" / "systemd" / file).read_text()
        text = text.replace("/etc/sockmgr/sockmgr.toml", str(machine.config))
        text = text.replace("/etc/sockmgr/", f"{machine.config.parent}/")
        text = text.replace("=sockmgr run", f"={sys.executable} -m sockmgr run")
        text = text.replace("User=sockmgr", "User=nobody").replace("ProtectHome=yes", "")
        (machine.units / file).write_text(text)
    assert machine.diagnose() == []
    told = sockmgr("doctor", "-c", str(machine.config), f"--units={machine.units}").stdout
    assert f"{name}.service, {name}.socket" in told


def test_units_of_another_config_are_not_looked_at(machine: Machine, tmp_path: Path) -> None:
    machine.install()
    machine.drop_in("shop.service", "[Service]\nKillMode=control-group\n")
    machine.config = tmp_path / "other.toml"
    other = CONFIG.replace("8000", "0").replace("/run/shop", f"{tmp_path}/x")
    machine.config.write_text(other.replace(".sock", ".sock?mode=0666"))
    assert machine.diagnose() == []


# --- The service -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "check", "what", "fix"),
    [
        ("[Service]\nType=simple", Check.UNIT_TYPE, "Type=simple", "Type=notify"),
        ("[Service]\nType=notify-reload", Check.UNIT_TYPE, "Type=notify-reload", "Type=notify"),
        ("[Service]\nExecReload=", Check.UNIT_RELOAD, "there is no ExecReload=", "ExecReload=/"),
        (
            "[Service]\nExecReload=\nExecReload=/bin/kill -HUP $MAINPID", Check.UNIT_RELOAD,
            "ExecReload= only sends a signal", "ExecReload=/",
        ),
        ("[Service]\nRestart=", Check.UNIT_RESTART, "Restart=no", "Restart=always"),
        ("[Service]\nRestart=on-success", Check.UNIT_RESTART, "on-success", "Restart=always"),
        (
            "[Unit]\nStartLimitIntervalSec=", Check.UNIT_START_LIMIT, "StartLimitIntervalSec=10s",
            "StartLimitIntervalSec=0 in [Unit]",
        ),
        ("[Service]\nKillMode=", Check.UNIT_KILL_MODE, "KillMode=control-group", "KillMode="),
        ("[Service]\nKillMode=mixed", Check.UNIT_KILL_MODE, "KillMode=mixed", "KillMode=process"),
        (
            "[Service]\nFileDescriptorStoreMax=9", Check.UNIT_FD_STORE,
            "FileDescriptorStoreMax=9, and this config may need", "FileDescriptorStoreMax=",
        ),
        (
            "[Service]\nFileDescriptorStoreMax=", Check.UNIT_FD_STORE,
            "FileDescriptorStoreMax=0, and this config may need", "FileDescriptorStoreMax=",
        ),
        ("[Service]\nPrivateTmp=yes", Check.UNIT_PRIVATE_TMP, "PrivateTmp=yes", "PrivateTmp=no"),
        (
            "[Service]\nPrivateTmp=disconnected", Check.UNIT_PRIVATE_TMP, "PrivateTmp=disc",
            "PrivateTmp=no",
        ),
        ("[Service]\nRemoveIPC=yes", Check.UNIT_PRIVATE_TMP, "RemoveIPC=yes", "RemoveIPC=no"),
        ("[Service]\nOOMPolicy=", Check.UNIT_OOM, "OOMPolicy=stop", "OOMPolicy=continue"),
        (
            "[Service]\nDynamicUser=yes", Check.UNIT_PRIVATE_TMP, "DynamicUser=yes",
            "a User= of its own",
        ),
        ("[Service]\nKillMode=none", Check.UNIT_KILL_MODE, "KillMode=none", "KillMode="),
        (
            "[Service]\nUser=nobody-of-that-name", Check.UNIT_USER,
            "there is no user nobody-of-that-name", "add the user",
        ),
        (
            "[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET",
            Check.UNIT_NETLINK, "does not allow AF_NETLINK", "RestrictAddressFamilies=AF_NETLINK",
        ),
        (
            "[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=~AF_NETLINK AF_PACKET",
            Check.UNIT_NETLINK, "does not allow AF_NETLINK", "RestrictAddressFamilies=AF_NETLINK",
        ),
        (
            "[Service]\nLimitNOFILE=48", Check.UNIT_OPEN_FILES,
            "shop.service may have 48 descriptors", "LimitNOFILE=65536",
        ),
    ],
)  # fmt: skip
def test_a_line_that_does_harm_is_found_in_a_drop_in(
    machine: Machine, text: str, check: Check, what: str, fix: str
) -> None:
    machine.install()
    machine.drop_in("shop.service", text + "\n")
    found = sole(machine.diagnose("--systemd=252"), check)
    assert what in found["what"]
    assert found["fix"].startswith(fix)


def test_a_line_that_does_harm_is_found_in_a_unit_that_somebody_wrote(machine: Machine) -> None:
    machine.install()
    service = machine.units / "shop.service"
    text = "".join(service.read_text().splitlines(keepends=True)[1:])  # without our mark
    service.write_text(re.sub("^KillMode=.*", "KillMode=none", text, flags=re.M))
    found = sole(machine.diagnose(), Check.UNIT_KILL_MODE)
    assert found["subject"] == str(service)
    assert found["fix"].endswith("(systemctl edit shop.service)")


def test_a_start_limit_that_restarts_cannot_hit_is_no_fault(machine: Machine) -> None:
    machine.install()
    machine.drop_in("shop.service", "[Unit]\nStartLimitIntervalSec=10s\n[Service]\nRestartSec=2s\n")
    assert machine.diagnose() == []
    machine.drop_in(
        "shop.service", "[Unit]\nStartLimitIntervalSec=1min\n[Service]\nRestartSec=2s\n"
    )
    sole(machine.diagnose(), Check.UNIT_START_LIMIT)


def test_units_of_an_older_config_are_found(machine: Machine) -> None:
    machine.install()
    machine.configure("127.0.0.1:8000", "127.0.0.1:8001")
    found = sole(machine.diagnose(), Check.UNIT_OUTDATED)
    assert found["what"].endswith(": shop-http.socket")
    assert found["fix"].startswith(f"sockmgr units -c {machine.config} --install --dir")
    machine.install()
    assert machine.diagnose() == []


@pytest.mark.parametrize(
    ("command", "config"),
    [("run -c a.toml", "a.toml"), ("run --config=a.toml", "a.toml"), ("run -c", ""), ("run", "")],
)
def test_the_config_of_a_command_is_named_in_any_way_or_not_at_all(
    command: str, config: str
) -> None:
    assert given_config(command.split()) == config


def test_a_listener_that_came_later_makes_our_units_old(machine: Machine) -> None:
    machine.install()
    machine.configure('admin = "', 'more = "tcp://127.0.0.1:8002"\nadmin = "')
    machine.configure('"http", "admin"', '"http", "admin", "more"')
    found = sole(machine.diagnose(), Check.UNIT_OUTDATED)
    assert found["what"].endswith(": shop-more.socket, shop.service")


def test_a_unit_whose_program_is_not_there_is_found(machine: Machine) -> None:
    machine.install()
    command = f"ExecStart=\nExecStart=/no/such/sockmgr run -c {machine.config}"
    machine.drop_in("shop.service", f"[Service]\n{command}\n")
    found = sole(machine.diagnose(), Check.UNIT_PROGRAM)
    assert "runs /no/such/sockmgr, which is not there" in found["what"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask for other users")
def test_a_unit_whose_user_cannot_start_the_workers_is_found(machine: Machine) -> None:
    machine.configure('cwd = "/"\n', 'cwd = "/"\nuser = "daemon"\n')
    machine.install("--user=nobody")
    found = sole(machine.diagnose(), Check.UNIT_USER)
    assert "User=nobody, and service.web.user = daemon" in found["what"]


def test_a_program_that_the_unit_would_not_find_is_found(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "bin" / "my-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}:{os.environ['PATH']}")
    machine.configure(f'"{sys.executable}", "-m", "http.server"', '"my-server"')
    machine.install()
    found = sole(machine.diagnose(), Check.UNIT_PATH)
    assert "my-server of service.web is not in" in found["what"]
    machine.drop_in("shop.service", f"[Service]\nEnvironment=PATH={server.parent}\n")
    assert machine.diagnose() == []


def test_a_sandbox_in_which_a_compiler_crashes_is_found(machine: Machine) -> None:
    machine.configure(f'"{sys.executable}"', '"node"')
    machine.install()
    assert machine.diagnose() == []
    machine.drop_in("shop.service", "[Service]\nMemoryDenyWriteExecute=yes\n")
    assert "runs node" in sole(machine.diagnose(), Check.UNIT_COMPILES)["what"]


@pytest.mark.parametrize("line", ["ReadWritePaths=/srv/uploads", "StateDirectory=shop"])
def test_files_that_only_the_worker_can_read_are_noted(machine: Machine, line: str) -> None:
    machine.install()
    machine.drop_in("shop.service", f"[Service]\n{line}\n")
    found = sole(machine.diagnose(), Check.UNIT_UMASK)
    assert line.partition("=")[2] in found["what"]
    assert 'umask = "022"' in found["fix"]
    machine.configure('cwd = "/"', 'cwd = "/"\numask = "022"')
    assert machine.diagnose() == []


def test_a_sandbox_that_hides_what_is_run_is_found(machine: Machine) -> None:
    machine.install()
    machine.configure('cwd = "/"', 'cwd = "/"\nenv = {}\n')
    machine.configure('"http.server"', '"http.server", "/home/shop/app.py"')
    machine.install()
    assert machine.diagnose() == []
    machine.drop_in("shop.service", "[Service]\nProtectHome=yes\n")
    found = sole(machine.diagnose(), Check.UNIT_HOME)
    assert re.search(r"ProtectHome= hides /(home|root)/", found["what"])


# --- The sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "check", "what", "fix"),
    [
        ("FileDescriptorName=htpp", Check.SOCKET_NAME, "htpp is no listener", "make FileDescr"),
        ("FileDescriptorName=", Check.SOCKET_NAME, "=shop-http.socket is no listener", "make"),
        (
            "ListenStream=[::1]:8000", Check.SOCKET_ADDRESS,
            "it listens on [::1]:8000, and listen.http is tcp://127.0.0.1:8000",
            "write the same address",
        ),
        ("ReusePort=no", Check.SOCKET_QUEUES, "without ReusePort=yes", "write the address 7 times"),
        ("TriggerLimitIntervalSec=", Check.SOCKET_TRIGGER_LIMIT, "=2s", "TriggerLimitIntervalSec"),
        ("Accept=yes", Check.SOCKET_ACCEPT, "Accept=yes", "Accept=no"),
    ],
)  # fmt: skip
def test_a_line_that_does_harm_is_found_in_a_socket_unit(
    machine: Machine, text: str, check: Check, what: str, fix: str
) -> None:
    machine.install()
    machine.drop_in("shop-http.socket", f"[Socket]\n{text}\n")
    found = machine.diagnose()
    if check is Check.SOCKET_NAME:  # then the listener has no socket, either
        found = [one for one in found if one["check"] != Check.SOCKET_MISSING.label]
    one = sole(found, check)
    assert one["subject"] == str(machine.units / "shop-http.socket")
    assert what in one["what"]
    assert one["fix"].startswith(fix)


@pytest.mark.parametrize(("lines", "why"), [(1, "cut-overs overlap"), (3, "a reload fails while")])
def test_too_few_queues_for_a_manager_that_cannot_add_one_are_found(
    machine: Machine, lines: int, why: str
) -> None:
    machine.install("--user=nobody")
    few = "[Socket]\nListenStream=\n" + "ListenStream=127.0.0.1:8000\n" * lines
    machine.drop_in("shop-http.socket", few)
    found = sole(machine.diagnose(), Check.SOCKET_QUEUES)
    assert why in found["why"]
    assert found["fix"].startswith("write the address 7 times")
    machine.drop_in("shop.service", "[Service]\nUser=root\n")
    assert machine.diagnose() == []


def test_a_listener_that_systemd_does_not_hold_is_noted(machine: Machine) -> None:
    machine.install()
    (machine.units / "shop-admin.socket").unlink()
    service = machine.units / "shop.service"
    service.write_text("# mine\n" + service.read_text())
    found = sole(machine.diagnose(), Check.SOCKET_MISSING)
    assert "no .socket unit has FileDescriptorName=admin" in found["what"]


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("tcp://[::]:80", "80"),
        ("tcp://0.0.0.0:80", "80"),
        ("tcp://[::1]:80", "[0:0::1]:80"),
        ("tcp://localhost:80", "127.0.0.1:80"),
        ("udp://127.0.0.1:53", "127.0.0.1:53"),
        ("unix:///run/a.sock", "/run/a.sock"),
        ("unix-abstract:shop", "@shop"),
    ],
)
def test_an_address_in_other_words_is_the_same(machine: Machine, address: str, line: str) -> None:
    machine.configure("tcp://127.0.0.1:8000", address)
    machine.install()
    kind = "ListenDatagram" if address.startswith("udp") else "ListenStream"
    lines = f"{kind}={line}\n" * 7
    machine.drop_in("shop-http.socket", f"[Socket]\n{kind}=\n{lines}")
    assert machine.diagnose() == []


# --- What systemd says of it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ("ActiveState=failed\nSubState=failed\nResult=start-limit-hit", "(start-limit-hit)"),
        ("ActiveState=activating\nSubState=auto-restart\nNRestarts=7", "again: 7 times so far"),
        ("ActiveState=active\nSubState=running\nResult=success\nNRestarts=7", ""),
        ("ActiveState=inactive\nSubState=dead\nResult=success\nNRestarts=0", ""),
        ("", ""),
    ],
)
def test_a_service_that_fails_again_and_again_is_found_by_what_systemd_says(
    told: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{told}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(units.state("shop.service"))
    assert [one.check for one in found] == [Check.UNIT_FAILS] * bool(what)
    assert what in "".join(one.what for one in found)
