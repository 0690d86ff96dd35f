"""What the doctor says on standard output: for people, for narrow terminals, for programs."""

from __future__ import annotations

import json
import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from sockmgr.doctor.finding import Check
from tests.doctor.diagnosis import CONFIG
from tests.e2e.apps import ROOT
from tests.helpers.command_line import sockmgr

# Outgoing connections of this machine leave from 127.0.0.1, so none has this port.
BAD = CONFIG.replace("127.0.0.1:0", "127.0.0.77:40000") + 'ready = { delay = 2 }\ncwd = "nowhere"\n'


@pytest.fixture
def bad(config: Path) -> Path:
    """Return a config with a problem and a note."""
    config.write_text(BAD)
    return config


def test_people_are_told_what_why_and_the_fix_by_patient(bad: Path) -> None:
    told = sockmgr("doctor", "-c", str(bad))
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert lines[0] == "config"
    assert lines[1].startswith(f"  problem: {bad}:7:7: service.web.cwd = ")
    assert lines[1].endswith(" [command]")
    assert lines[2:4] == [
        "    its workers cannot start, so a start fails, and a reload too",
        "    create it, or correct cwd",
    ]
    assert lines[5] == "machine"
    assert lines[6].startswith("  note: port 40000 of listen.http")
    assert lines[-1] == f"1 problem, 1 note; looked at {bad}, this machine"


def test_notes_alone_are_no_failure(bad: Path) -> None:
    bad.write_text(BAD.replace('cwd = "nowhere"', ""))
    told = sockmgr("doctor", "-c", str(bad))
    assert told.exit_code == 0
    assert "0 problems, 2 notes" in told.stdout


def test_programs_are_told_everything(bad: Path) -> None:
    first, _ = json.loads(sockmgr("doctor", "--json", "-c", str(bad)).stdout)
    assert first["check"] == Check.COMMAND.label
    assert sorted(first) == ["check", "fix", "patient", "severity", "subject", "what", "why"]


def test_wrong_usage_is_no_finding() -> None:
    assert sockmgr("doctor", "--systemd=old").exit_code == 2


def test_a_narrow_terminal_gets_narrow_lines(bad: Path) -> None:
    master, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    env = {"TERM": "xterm"} | {
        k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "TERM")
    }
    with subprocess.Popen(
        [sys.executable, "-m", "sockmgr", "doctor", "-c", str(bad)], cwd=ROOT, env=env,
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.DEVNULL,
    ) as doctor:  # fmt: skip
        os.close(terminal)
        told = b""
        try:
            while piece := os.read(master, 4096):
                told += piece
        except OSError:  # EIO: the other end is closed
            os.close(master)
    assert doctor.returncode == 1
    assert b"\x1b[" in told
    assert b"create it, or correct cwd" in told
