"""See by its cgroup which unit of systemd a process is in, and which others are. Signals nobody.

Reads /proc only, where both versions of cgroups(7) show: v2, and the hierarchy name=systemd of v1.
So it does not matter whether, or where, cgroups are mounted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from sockmgr.kernel.own_cgroups import read
from sockmgr.kernel.procfs import Member, everybody

_KINDS = (".service", ".scope", ".slice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A .service: its name, and the line of /proc/PID/cgroup that its processes have.

    `of_user` is whether a user's own systemd runs it (`systemctl --user`).
    """

    name: str
    line: str
    of_user: bool = False

    def has(self, pid: int) -> bool:
        """Return whether a process is in the unit, or in a cgroup below it."""
        lines = _lines(pid)
        return any(line == self.line or line.startswith(f"{self.line}/") for line in lines)


def own_unit() -> Unit | None:
    """Return the service that we run in; None in a session, a container, or without systemd."""
    return unit_in(_lines(os.getpid()))


def unit_in(lines: list[str]) -> Unit | None:
    """Return the service of a process with these lines of /proc/PID/cgroup; None without one."""
    for line in sorted(lines, key=lambda line: not line.startswith("0::")):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if (number, controllers) == ("0", "") or controllers == "name=systemd":
            parts = path.split("/")
            while parts and not parts[-1].endswith(_KINDS):
                parts.pop()  # a cgroup that the service made inside its own (Delegate=)
            if parts and parts[-1].endswith(".service"):
                return Unit(
                    # systemd puts "_" before a name that the kernel uses for a file of its own.
                    name=parts[-1].removeprefix("_"),
                    line=f"{number}:{controllers}:{'/'.join(parts)}",
                    of_user=any(part.startswith("user@") for part in parts[:-1]),
                )
    return None


def mark_of(unit: Unit) -> str:
    """Return the path of the link that exists from before the unit's first process to its end.

    systemd removes the link when the unit is dead, before it closes what the fd store holds.
    """
    run = os.environ.get("XDG_RUNTIME_DIR", "") if unit.of_user else "/run"
    return f"{run}/systemd/units/invocation:{unit.name}"


def members(unit: Unit) -> dict[int, Member]:
    """Return the living processes of a service that we may see (proc(5), hidepid), by pid."""
    return {each.pid: each for each in everybody() if unit.has(each.pid)}


def _lines(pid: int) -> list[str]:
    return read(f"/proc/{pid}/cgroup").splitlines()
