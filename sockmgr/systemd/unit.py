"""Ask systemd about our own unit through systemctl(1), which works for an unprivileged user, too.

Each question blocks the caller, for TIMEOUT seconds at most. Without D-Bus systemctl answers only
root; then the answer here is that it is not known.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from enum import Enum

from sockmgr.errors import SockmgrError
from sockmgr.kernel.cgroup import Unit, own_unit

TIMEOUT = 2.0


class Ending(Enum):
    """Why systemd ends us; the signal is SIGTERM in any case."""

    RESTART = "restart"
    STOP = "stop"
    UNKNOWN = "unknown"


def ending() -> Ending:
    """Return what systemd is about to do with our unit; UNKNOWN also if that is nothing."""
    unit = own_unit()
    if unit is None:
        return Ending.UNKNOWN
    kinds = [kind for name, kind in _jobs(unit) if name == unit.name]
    return Ending(kinds[0]) if kinds in (["restart"], ["stop"]) else Ending.UNKNOWN


def sockets_end() -> bool:
    """Return whether systemd stops all sockets of our unit as well, as at a shutdown."""
    unit = own_unit()
    if unit is None:
        return False
    stopped = {name for name, kind in _jobs(unit) if kind == "stop"}
    sockets = _ask(unit, "show", "--value", "--property=TriggeredBy", unit.name).split()
    return bool(sockets) and stopped.issuperset(sockets)


def shown(name: str, *properties: str) -> dict[str, str]:
    """Return what systemd says of a unit, by property; nothing if it cannot be asked."""
    told = _ask(Unit(name=name, line=""), "show", f"--property={','.join(properties)}", name)
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def _jobs(unit: Unit) -> list[tuple[str, str]]:
    """Return the units for which there is a job, each with the kind of the job."""
    # All jobs are listed, for systemctl takes a name for a pattern, in which "\\" has a meaning.
    jobs = map(str.split, _ask(unit, "list-jobs", "--no-legend", "--full").splitlines())
    return [(job[1], job[2]) for job in jobs if len(job) > 2]


def running_version() -> int | None:
    """Return the version of systemd, None without systemctl; raise SockmgrError if it has none."""
    import shutil  # noqa: PLC0415 - with its archive formats 0.3 MB, which a manager saves

    if shutil.which("systemctl") is None:
        return None
    printed = subprocess.run(
        ["systemctl", "--version"], capture_output=True, text=True, check=False
    ).stdout
    if found := re.match(r"systemd (\d+)", printed):
        return int(found[1])
    raise SockmgrError(
        f"systemctl --version prints no version: {printed[:60]!r}",
        do="name the version, for example --systemd 252",
    )


def fd_store_max(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return how many descriptors systemd may hold for our unit; None if it is not known.

    systemd 254 and later sets $FDSTORE (systemd.exec(5)); an older one is asked.
    """
    limit = environ.get("FDSTORE", "")
    if not limit and environ.get("NOTIFY_SOCKET") and (unit := own_unit()):
        limit = _ask(unit, "show", "--value", "--property=FileDescriptorStoreMax", unit.name)
    return int(limit) if limit.isdecimal() else None


def _ask(unit: Unit, *question: str) -> str:
    """Return what systemctl prints; "" if it fails."""
    whose = "--user" if unit.of_user else "--system"
    # systemctl would send to NOTIFY_SOCKET as well, and NotifyAccess=main refuses its messages.
    ours = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    try:
        return subprocess.run(
            ["systemctl", whose, "--no-pager", *question], capture_output=True, text=True,
            timeout=TIMEOUT, check=True, stdin=subprocess.DEVNULL, errors="replace",
            env={**ours, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
