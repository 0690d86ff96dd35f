"""The small server of tests under torture, and which processes are left of it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from sockmgr.torture.plan import Plan
from sockmgr.torture.scenario import SCENARIOS, Scenario

PROGRAM = str(Path(__file__).with_name("prefork.py"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def prefork(*faults: str) -> Plan:
    """Return the plan for a server of two workers that does these faults once it is reloaded."""
    return Plan(
        command=(sys.executable, PROGRAM, "{port}", *faults), port=free_port(), own_app=True,
        reload="kill -HUP {pid}", waits=bool(faults), seconds=1.0,
        timeout=1.0 if faults else 20.0,
    )  # fmt: skip


def scenarios(*names: str) -> list[Scenario]:
    return [each for each in SCENARIOS if each.name in names]


def left_of(plan: Plan) -> list[str]:
    """Return the command lines of processes that serve this plan's port."""
    words = [f"\0{plan.port}\0".encode(), PROGRAM.encode()]
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:  # gone
            continue
        if all(word in line for word in words):
            found.append(line.decode())
    return found
