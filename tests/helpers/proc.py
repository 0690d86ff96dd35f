"""What /proc shows of a process: its descriptors, figures and zombies, and whether it sleeps."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


def descriptors(pid: int) -> list[str]:
    """Name what each descriptor of a process is, without what differs from one to the next."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()).split(":", maxsplit=1)[0])
    return sorted(found)


def field(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie that somebody else has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def zombies(parent: int) -> int:
    states = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            states.append((rest[0], int(rest[1])))
    return states.count(("Z", parent))


def sleeps(pid: int) -> bool:
    """Whether the process has not run for a tenth of a second."""
    before = field(pid, "voluntary_ctxt_switches")
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        if field(pid, "voluntary_ctxt_switches") != before:
            return False
    return True
