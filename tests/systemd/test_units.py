"""The units that we ship and write, as systemd itself sees them. Nothing is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sockmgr.config.config import parse
from sockmgr.systemd.unit_lines import POLL_LIMITS
from sockmgr.systemd.units import (
    NOTIFY_RELOAD_DROP_IN,
    OLDEST,
    POLL_LIMIT,
    Place,
    units,
)
from tests.systemd.machine import judging

CONTRIB = Path(__file__).parents[2] / "contrib" / "systemd"
SHIPPED = [
    "sockmgr.socket", "sockmgr.service", "sockmgr@.socket", "sockmgr@.service",
    "sockmgr-metrics.socket", "sockmgr-metrics.service",
]  # fmt: skip
EXPOSURE = 18  # tenths, of 100
CONFIG = """
name = "shop"
[listen]
http = "tcp://127.0.0.1:8000"
admin = "unix:///run/shop.sock"
dns = "udp://[::1]:53"
[service.web]
command = ["server"]
"""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and os.environ.get("CI") != "true",
    reason="systemd-analyze is not installed",
)


@pytest.fixture(scope="session")
def version() -> int:
    """Return the version of the systemd that judges."""
    told = subprocess.run(
        judging("systemd-analyze", "--version"), capture_output=True, text=True, check=True
    ).stdout
    found = re.match(r"systemd (\d+)", told)
    assert found, told
    return int(found[1])


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """Return a copy of the shipped units in which `sockmgr` is a program that is there."""
    for name in SHIPPED:
        text = (CONTRIB / name).read_text()
        text = re.sub(r"^(Exec\w+=)sockmgr ", r"\1/bin/true ", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(text)
    return tmp_path


def verify(directory: Path, *names: str) -> None:
    """Have systemd read these units; it says nothing about good ones."""
    done = subprocess.run(
        judging(
            "systemd-analyze", "verify", "--man=no", *(str(directory / name) for name in names)
        ),
        capture_output=True, text=True, check=False,
        # Without /etc: what this machine has enabled may be too old for the systemd that judges.
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:/usr/lib/systemd/system"},
    )  # fmt: skip
    # Unknown keys are told, but the exit status stays 0.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def exposure_is_at_most(path: Path, tenths: int) -> bool:
    done = subprocess.run(
        judging(
            "systemd-analyze", "security", "--offline=true", f"--threshold={tenths}", str(path)
        ),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode == 0


def assignments(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"\w+=", line)]


# --- What is shipped -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name.replace("@", "@shop") for name in SHIPPED])
def test_systemd_has_nothing_to_say_about_a_shipped_unit(shipped: Path, name: str) -> None:
    verify(shipped, name)


def test_systemd_would_tell_of_a_key_that_it_does_not_know(shipped: Path) -> None:
    path = shipped / "sockmgr.service"
    path.write_text(path.read_text().replace("KillMode=", "KilMode="))
    with pytest.raises(AssertionError, match="KilMode"):
        verify(shipped, "sockmgr.service")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.endswith(".service")])
def test_the_exposure_of_a_shipped_service_is_low(shipped: Path, name: str) -> None:
    assert exposure_is_at_most(shipped / name, EXPOSURE)


def test_the_exposure_is_low_even_if_the_journal_may_be_read(shipped: Path) -> None:
    path = shipped / "sockmgr.service"
    (line,) = assignments((CONTRIB / "drop-ins" / "journal.conf").read_text())
    path.write_text(path.read_text().replace("[Service]\n", f"[Service]\n{line}\n"))
    assert exposure_is_at_most(path, EXPOSURE)


def test_the_exposure_of_a_service_without_its_hardening_is_not_low(shipped: Path) -> None:
    path = shipped / "sockmgr.service"
    path.write_text(path.read_text().replace("CapabilityBoundingSet=\n", ""))
    assert not exposure_is_at_most(path, EXPOSURE)


@pytest.mark.parametrize(
    ("name", "unit", "oldest"),
    [
        ("notify-reload.conf", "sockmgr.service", 253),
        ("poll-limit.conf", "sockmgr.socket", 255),
        ("journal.conf", "sockmgr.service", 252),
        ("limits.conf", "sockmgr.service", 254),
    ],
)
def test_a_drop_in_is_understood_from_the_version_on_that_it_is_for(
    shipped: Path, version: int, name: str, unit: str, oldest: int
) -> None:
    (shipped / f"{unit}.d").mkdir()
    shutil.copy(CONTRIB / "drop-ins" / name, shipped / f"{unit}.d")
    if version >= oldest:
        verify(shipped, unit)
    else:
        with pytest.raises(AssertionError, match=f"{name}:.*ignoring"):
            verify(shipped, unit)


def test_the_shipped_service_says_what_sockmgr_units_writes() -> None:
    config = parse(
        b'name = "sockmgr"\n[listen]\nhttp = "tcp://127.0.0.1:8000"\n'
        b'[service.web]\ncommand = ["server"]\ncwd = "/"\n',
        file="sockmgr.toml",
    )
    place = Place(program=("sockmgr",), config="/etc/sockmgr/sockmgr.toml")
    for name, text in units(config, place).items():
        ours = [line for line in assignments(text) if not line.startswith("Description=")]
        shipped = assignments((CONTRIB / name.replace("-http", "")).read_text())
        shipped = [line.replace("sockmgr.socket", "sockmgr-http.socket") for line in shipped]
        assert [line for line in shipped if not line.startswith("Description=")] == ours


@pytest.mark.parametrize(
    ("keys", "asks"),
    [
        ("", False),
        ('ready = "accepting"', False),
        ('ready = { http = "/" }', True),
        ("ready = { tcp = true }", True),
        ('ready = { exec = ["true"] }', True),
        ('rollout.warmup = ["/"]', True),
        ('app = "a:b"\naccept = "per-worker"\nhealthy = { http = "/" }', True),
        ('app = "a:b"\naccept = "dispatch"\nhealthy = { http = "/" }', False),
    ],
)
def test_a_manager_that_asks_workers_by_their_queues_may_call_bpf(keys: str, asks: bool) -> None:
    command = "" if "app =" in keys else 'command = ["server"]\n'
    text = f'[listen]\nhttp = "tcp://127.0.0.1:8000"\n[service.web]\n{command}cwd = "/"\n{keys}\n'
    config = parse(text.encode(), file="sockmgr.toml")
    place = Place(program=("sockmgr",), config="/etc/sockmgr/sockmgr.toml")
    drop_in = assignments((CONTRIB / "drop-ins" / "round-robin.conf").read_text())
    lines = assignments(units(config, place)["sockmgr.service"])
    assert (set(drop_in) <= set(lines)) == asks
    if asks:  # what is taken away later is not there
        assert lines.index("SystemCallFilter=bpf") > lines.index("SystemCallFilter=~@privileged")
    assert ("CapabilityBoundingSet=" in lines) != asks


def test_a_template_differs_from_its_pair_in_names_and_addresses_only() -> None:
    pair = set(assignments((CONTRIB / "sockmgr.service").read_text()))
    template = set(assignments((CONTRIB / "sockmgr@.service").read_text()))
    assert {line.replace("-%i", "").replace("@%i", "").replace("%i", "sockmgr")
            for line in template - pair} == pair - template  # fmt: skip


def test_the_shipped_drop_ins_are_those_that_sockmgr_units_writes() -> None:
    drop_ins = CONTRIB / "drop-ins"
    assert (drop_ins / "notify-reload.conf").read_text() == NOTIFY_RELOAD_DROP_IN
    lines = (f"# For systemd {POLL_LIMIT} and later.", "[Socket]", *POLL_LIMITS)
    assert (drop_ins / "poll-limit.conf").read_text().splitlines() == list(lines)


# --- What is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", 'user = "root"', 'user = "root"\n[service.job]\n'
                                  'command = ["job"]\nlisten = []\nuser = "daemon"'])  # fmt: skip
def test_systemd_has_nothing_to_say_about_units_that_are_written(
    tmp_path: Path, version: int, user: str
) -> None:
    config = parse(f'{CONFIG}listen = ["http", "admin", "dns"]\n{user}'.encode(), file="shop.toml")
    place = Place(
        program=("/bin/true", "-m", "sockmgr"),
        config="/etc/a shop/100%.toml",
        path="/opt/shop/bin:/usr/bin",
        version=version,
        notify_reload=version >= 253,
    )
    files = units(config, place)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    verify(tmp_path, *(name for name in files if "/" not in name))


def test_units_for_the_oldest_systemd_are_understood_by_every_later_one(
    tmp_path: Path, version: int
) -> None:
    assert version >= OLDEST
    config = parse(f'{CONFIG}listen = ["http", "admin", "dns"]'.encode(), file="shop.toml")
    files = units(config, Place(program=("/bin/true",), config="/etc/shop.toml"))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    verify(tmp_path, *files)
    assert exposure_is_at_most(tmp_path / "shop.service", EXPOSURE)
