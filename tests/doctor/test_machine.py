"""The doctor finds what this machine refuses or has set badly; each is really so in a test."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from sockmgr.doctor.finding import Check
from tests.doctor.diagnosis import CONFIG, diagnose, diagnose_under, sole
from tests.helpers.command_line import sockmgr

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")
REFUSE = (sys.executable, "-m", "tests.helpers.refuse")


def with_sysctl(setting: str) -> tuple[str, ...]:
    """Return the start of a command in a network namespace with this setting."""
    name, _, value = setting.partition("=")
    script = f'echo {value} > /proc/sys/{name} && exec "$@"'
    return "unshare", "--net", "sh", "-c", script, "sh"


def listening_at(address: str) -> str:
    return CONFIG.replace("tcp://127.0.0.1:0", address)


@pytest.mark.parametrize(
    ("what", "check", "fix"),
    [
        ("pidfd", Check.PIDFD, "allow them in the seccomp filter"),
        ("steering", Check.STEERING, "allow this option of setsockopt(2)"),
        ("netlink", Check.SOCK_DIAG, "allow AF_NETLINK"),
    ],
)
def test_what_a_container_refuses_is_found(config: Path, what: str, check: Check, fix: str) -> None:
    found = sole(diagnose_under([*REFUSE, what], config), check)
    assert "Operation not permitted" in found["what"]
    assert found["fix"].startswith(fix)


def test_queues_that_could_not_take_turns_are_noted_where_several_are_fed(config: Path) -> None:
    assert diagnose_under([*REFUSE, "bpf"], config) == []
    config.write_text(CONFIG + "workers = 2\nrollout.surge = 1\n")
    found = sole(diagnose_under([*REFUSE, "bpf"], config), Check.ROUND_ROBIN)
    assert found["what"] == "queues cannot take turns: bpf(2): operation not permitted"
    assert found["fix"] == "give the manager CAP_BPF, or run it as root"


@as_root
def test_a_manager_that_could_not_see_its_workers_is_found(config: Path) -> None:
    config.write_text(CONFIG + 'user = "nobody"\n')
    without = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
    found = sole(diagnose_under(without, config), Check.UNSEEN_WORKERS)
    assert "cannot see here what a process of nobody waits for" in found["what"]
    assert found["fix"].startswith("give the manager CAP_SYS_PTRACE")
    assert found["fix"].endswith('or set ready = "notify"')
    assert diagnose(config) == []


@as_root
def test_a_manager_that_could_not_become_the_user_of_its_workers_is_found(config: Path) -> None:
    config.write_text(CONFIG + 'user = "nobody"\n')
    without = ("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid")
    found = sole(diagnose_under(without, config), Check.BECOME_USER)
    assert "CAP_SETUID" in found["fix"]


@as_root
def test_a_backlog_that_the_kernel_caps_is_found(config: Path) -> None:
    under = with_sysctl("net/core/somaxconn=128")
    found = sole(diagnose_under(under, config), Check.SOMAXCONN)
    assert found["subject"] == "listen.http"
    assert "let 4096 connections wait, and net.core.somaxconn is 128" in found["what"]
    assert found["fix"] == "sysctl net.core.somaxconn=4096, or backlog = 128"
    config.write_text(listening_at("udp://127.0.0.1:0"))
    assert diagnose_under(under, config) == []


@as_root
def test_a_kernel_that_resets_whom_it_has_no_room_for_is_found(config: Path) -> None:
    under = with_sysctl("net/ipv4/tcp_abort_on_overflow=1")
    found = sole(diagnose_under(under, config), Check.ABORT_ON_OVERFLOW)
    assert found["fix"] == "sysctl net.ipv4.tcp_abort_on_overflow=0"


@as_root
def test_a_port_that_outgoing_connections_may_take_is_noted_unless_it_is_reserved(
    config: Path,
) -> None:
    config.write_text(listening_at("tcp://127.0.0.77:40000"))
    under = with_sysctl("net/ipv4/ip_local_port_range=32768 60999")
    found = sole(diagnose_under(under, config), Check.OUTGOING_PORT)
    assert "port 40000 of listen.http" in found["what"]
    assert found["fix"].startswith("sysctl net.ipv4.ip_local_reserved_ports=40000")
    under = with_sysctl("net/ipv4/ip_local_reserved_ports=7,39999-40001")
    assert diagnose_under(under, config) == []


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_port_that_another_program_has_is_found(config: Path, scheme: str) -> None:
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as other:
        other.bind(("127.0.0.1", 0))
        if scheme == "tcp":
            other.listen()
        port = other.getsockname()[1]
        config.write_text(listening_at(f"{scheme}://127.0.0.1:{port}"))
        found = [one for one in diagnose(config) if one["check"] != Check.OUTGOING_PORT.label]
        one = sole(found, Check.CANNOT_LISTEN)
    assert f"cannot listen on {scheme}://127.0.0.1:{port}: another program does" in one["what"]
    assert one["fix"].startswith("stop it")


@pytest.mark.parametrize(("scheme", "mode"), [("unix://", "?mode=0666"), ("unix-abstract:", "")])
def test_a_unix_socket_that_another_program_has_is_found(
    config: Path, tmp_path: Path, scheme: str, mode: str
) -> None:
    path = tmp_path / "other.sock"
    config.write_text(listening_at(f"{scheme}{path}{mode}"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path) if scheme == "unix://" else f"\0{path}")
        assert diagnose(config) == []  # it does not listen
        other.listen()
        found = sole(diagnose(config), Check.CANNOT_LISTEN)
    assert "another program does" in found["what"]
    assert diagnose(config) == []  # what it leaves is stale, and a manager replaces it


@pytest.mark.parametrize(
    ("address", "what", "fix"),
    [
        ("unix:///no/such/directory/http.sock", "there is no directory /no/such", "create it"),
        ("unix:///etc/passwd", "the path exists and is not a socket", "remove it"),
        ("tcp://no-such-host.invalid:8000", "invalid:8000: ", "write an address of this host"),
        ("tcp://two..dots:8000", "two..dots:8000: ", "write an address of this host"),
    ],
)
def test_an_address_that_cannot_be_listened_on_here_is_found(
    config: Path, address: str, what: str, fix: str
) -> None:
    config.write_text(listening_at(address))
    found = sole(diagnose(config), Check.CANNOT_LISTEN)
    assert what in found["what"]
    assert found["fix"].startswith(fix)


@pytest.mark.parametrize(
    ("mode", "noted"),
    [("", True), ("?mode=0644", True), ("?mode=0666", False), ("?mode=0660&group=root", False)],
)
def test_a_unix_socket_to_which_only_its_owner_may_connect_is_noted(
    config: Path, tmp_path: Path, mode: str, *, noted: bool
) -> None:
    config.write_text(listening_at(f"unix://{tmp_path}/web.sock{mode}"))
    found = diagnose(config)
    if noted:
        one = sole(found, Check.SOCKET_PRIVATE)
        assert re.match(rf"only \w+ may connect to {tmp_path}/web.sock \(mode 0", one["what"])
        assert "?mode=0660&group=GROUP" in one["fix"]
    told = sockmgr("check", "-c", str(config)).stdout
    assert ("note: only" in told) == noted == bool(found)


@as_root
def test_a_machine_on_which_no_control_socket_can_be_is_found(config: Path) -> None:
    script = 'for at in /run /tmp /dev/shm; do mount --bind -o ro $at $at; done; exec "$@"'
    under = ("unshare", "--mount", "--net", "sh", "-c", script, "sh")
    env = {"XDG_RUNTIME_DIR": "", "RUNTIME_DIRECTORY": "", "SOCKMGR_CONTROL": ""}
    found = diagnose_under(under, config, env=env)
    one = sole(found, Check.NO_CONTROL)
    assert "/run/sockmgr" in one["what"]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        assert diagnose_under(under, config, "--control", f"{place}/a.sock", env=env) == []


@pytest.mark.parametrize("address", ["tcp://198.51.100.7:8000", "udp://[2001:db8::7]:53"])
def test_an_address_that_this_host_does_not_have_now_is_noted(config: Path, address: str) -> None:
    config.write_text(listening_at(address))
    found = sole(diagnose(config), Check.ADDRESS_ABSENT)
    assert address in found["what"]
    assert "listen.http" in found["fix"]


@as_root
def test_a_port_for_which_there_is_no_privilege_is_found(config: Path) -> None:
    config.write_text(listening_at("tcp://0.0.0.0:80"))
    without = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    under = (*with_sysctl("net/ipv4/ip_unprivileged_port_start=1024"), *without)
    found = sole(diagnose_under(under, config), Check.CANNOT_LISTEN)
    assert "this port is privileged" in found["what"]
    assert "CAP_NET_BIND_SERVICE" in found["fix"]


def test_a_limit_of_descriptors_that_a_rollout_would_pass_is_found(config: Path) -> None:
    config.write_text(CONFIG + "workers = 200\n")
    found = sole(diagnose_under(("prlimit", "--nofile=512:512"), config), Check.OPEN_FILES)
    assert "a manager started here may have 512 descriptors" in found["what"]
    assert found["fix"].startswith("LimitNOFILE=65536")
    config.write_text(CONFIG + "workers = 100\n")
    assert diagnose_under(("prlimit", "--nofile=512:512"), config) == []
