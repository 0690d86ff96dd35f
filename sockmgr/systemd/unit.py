"""What systemd says of our own unit: asked through systemctl, which also works as User=.

Each question holds up the caller, for TIMEOUT seconds at most. Without D-Bus nobody but root is
answered, and then we say that we do not know.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from enum import Enum

from sockmgr.kernel.cgroup import Unit, own_unit

TIMEOUT = 2.0


class Ending(Enum):
    """Why systemd ends us, which is the same SIGTERM in any case."""

    RESTART = "restart"
    STOP = "stop"
    UNKNOWN = "unknown"


def ending() -> Ending:
    """Return what systemd is about to do with our unit; UNKNOWN if it does nothing, too."""
    unit = own_unit()
    if unit is None:
        return Ending.UNKNOWN
    # All of them: a name in the question would be a pattern, in which "\\" has a meaning.
    jobs = map(str.split, _ask(unit, "list-jobs", "--no-legend", "--full").splitlines())
    kinds = [job[2] for job in jobs if len(job) > 2 and job[1] == unit.name]
    return Ending(kinds[0]) if kinds in (["restart"], ["stop"]) else Ending.UNKNOWN


def fd_store_max(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return how many descriptors systemd keeps for our unit; None if nobody can tell.

    Since version 254 it says so itself: systemd.exec(5), $FDSTORE.
    """
    told = environ.get("FDSTORE", "")
    if not told and environ.get("NOTIFY_SOCKET") and (unit := own_unit()):
        told = _ask(unit, "show", "--value", "--property=FileDescriptorStoreMax", unit.name)
    return int(told) if told.isdecimal() else None


def _ask(unit: Unit, *question: str) -> str:
    """Return what systemctl answers; nothing if it cannot."""
    whose = "--user" if unit.of_user else "--system"
    # It would speak to NOTIFY_SOCKET as well, and be refused.
    ours = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    try:
        return subprocess.run(
            ["systemctl", whose, "--no-pager", *question], capture_output=True, text=True,
            timeout=TIMEOUT, check=True, stdin=subprocess.DEVNULL, errors="replace",
            env={**ours, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
