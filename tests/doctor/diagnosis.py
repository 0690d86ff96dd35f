"""Ask the doctor, in this process or in a program, and look at what it found."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sockmgr.doctor.finding import Check
from tests.e2e.apps import ROOT
from tests.helpers.command_line import sockmgr

SERVER = f"""\
[service.web]
command = ["{sys.executable}", "-m", "http.server"]
"""
CONFIG = f"""\
name = "shop-of-a-test"
[listen]
http = "tcp://127.0.0.1:0"
{SERVER}"""
Found = list[dict[str, str]]


def diagnose(config: Path, *options: str) -> Found:
    """Return what the doctor says of a config; its exit code must agree."""
    result = sockmgr("doctor", "--json", "-c", str(config), *options)
    return agreed(result.exit_code, result.stdout, result.stderr)


def diagnose_under(
    before: Sequence[str], config: Path, *options: str, env: Mapping[str, str] | None = None
) -> Found:
    """Return what it says when the commands `before` start it."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "sockmgr", "doctor", "--json", "-c", str(config), *options],
        cwd=ROOT, env=os.environ | dict(env or {}), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return agreed(done.returncode, done.stdout, done.stderr)


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


def sole(found: Found, check: Check) -> dict[str, str]:
    """Return the one finding, which is to be of this check, and is to say all three things."""
    assert [one["check"] for one in found] == [check.label], found
    (one,) = found
    assert one["patient"] == check.patient
    assert one["severity"] == check.severity
    assert one["what"]
    assert one["why"]
    assert one["fix"]
    return one


def agreed(code: int, stdout: str, stderr: str) -> Found:
    """Return the findings in an answer, with which the exit code must agree."""
    assert code in (0, 1), stderr
    assert stdout, stderr
    found: list[dict[str, Any]] = json.loads(stdout)
    assert code == any(one["severity"] == "problem" for one in found), found
    return found
