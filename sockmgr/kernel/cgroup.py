"""Which unit of systemd a process is in, by its cgroup, and who else is. Signals nobody.

Reads /proc only, so it does not matter where cgroups are mounted, if at all: cgroup v2, or the
hierarchy name=systemd of v1 (cgroups(7)).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sockmgr.kernel.procfs import Member, everybody

_KINDS = (".service", ".scope", ".slice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A service: its name, and the line of /proc/PID/cgroup that its processes have.

    `of_user`: it belongs to a user's own systemd.
    """

    name: str
    line: str
    of_user: bool = False

    def has(self, pid: int) -> bool:
        """Tell whether a process is in it, or in a cgroup below."""
        lines = _lines(pid)
        return any(line == self.line or line.startswith(f"{self.line}/") for line in lines)


def own_unit() -> Unit | None:
    """Return the service that we are in; None in a session, a container or no systemd at all."""
    return unit_in(_lines(os.getpid()))


def unit_in(lines: list[str]) -> Unit | None:
    """Return the service that these lines of /proc/PID/cgroup are of."""
    for line in sorted(lines, key=lambda line: not line.startswith("0::")):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if (number, controllers) == ("0", "") or controllers == "name=systemd":
            parts = path.split("/")
            while parts and not parts[-1].endswith(_KINDS):
                parts.pop()  # a cgroup of the service's own (Delegate=)
            if parts and parts[-1].endswith(".service"):
                return Unit(
                    # systemd writes "_" before what would be a file of the kernel's.
                    name=parts[-1].removeprefix("_"),
                    line=f"{number}:{controllers}:{'/'.join(parts)}",
                    of_user=any(part.startswith("user@") for part in parts[:-1]),
                )
    return None


def mark_of(unit: Unit) -> str:
    """Return the path of a link that systemd makes before it starts the unit's first process.

    It is removed when the unit is dead, before systemd closes what the fd store holds.
    """
    run = os.environ.get("XDG_RUNTIME_DIR", "") if unit.of_user else "/run"
    return f"{run}/systemd/units/invocation:{unit.name}"


def members(unit: Unit) -> dict[int, Member]:
    """Return the living processes of a service, as far as we may see them (proc(5), hidepid)."""
    return {each.pid: each for each in everybody() if unit.has(each.pid)}


def _lines(pid: int) -> list[str]:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes()).splitlines()
    except OSError:  # gone
        return []
