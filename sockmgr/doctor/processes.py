"""See in /proc the signals, the environment, the links and the limits of another process.

Every function describes one instant, and returns nothing for a process that is gone or hidden.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from sockmgr.kernel import procfs
from sockmgr.kernel.procfs import argument_area, descendants


class Signals(NamedTuple):
    """The sets of signals that a process ignores, catches and blocks: proc_pid_status(5)."""

    ignored: int
    caught: int
    blocked: int

    def ignores(self, number: int) -> bool:
        return bool(self.ignored >> (number - 1) & 1)

    def dies_of(self, number: int) -> bool:
        """Return whether this signal ends the process at once, because it has no handler."""
        return not (self.ignored | self.caught | self.blocked) >> (number - 1) & 1


def signals(pid: int) -> Signals | None:
    """Return the dispositions of a process, and what its first thread blocks."""
    text = _read(pid, "status").decode(errors="replace")
    sets = dict(re.findall(r"^(Sig(?:Ign|Cgt|Blk)):\s*([0-9a-f]+)$", text, re.MULTILINE))
    if len(sets) < 3:
        return None
    return Signals(*(int(sets[f"Sig{name}"], 16) for name in ("Ign", "Cgt", "Blk")))


def may_look_into(pid: int) -> bool:
    """Return whether the descriptors of a process can be seen from here."""
    fds = f"/proc/{pid}/fd"
    return os.access(fds, os.R_OK | os.X_OK, effective_ids=True) and _link(pid, "cwd") != ""


def shares_network(pid: int) -> bool:
    """Return whether a process is in our network namespace."""
    return _link(pid, "ns/net") == _link("self", "ns/net")


def environ(pid: int) -> dict[str, str]:
    """Return the environment that the program of a process was started with."""
    pairs = (text.partition("=") for text in os.fsdecode(_read(pid, "environ")).split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def successors(pid: int) -> list[int]:
    """Return the descendants that called execve(2) since they were forked from `pid`."""
    own = argument_area(pid)
    return [each for each in descendants(pid) if argument_area(each) not in (own, None)]


def program(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def is_deleted(pid: int, link: str) -> bool:
    """Return whether what `cwd` or `exe` of a process leads to was removed or replaced."""
    return _link(pid, link).endswith(" (deleted)")


def target(pid: int, link: str) -> str:
    """Return what `cwd` or `exe` of a process led to."""
    return _link(pid, link).removesuffix(" (deleted)")


def open_files_limit(pid: int) -> int | None:
    """Return how many descriptors a process may have, None if there is no limit or it is hidden."""
    found = re.search(rb"^Max open files\s+(\d+)", _read(pid, "limits"), re.MULTILINE)
    return int(found[1]) if found else None


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return procfs.read(f"/proc/{pid}/{name}")
    return b""


def _link(pid: int | str, name: str) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/{name}").readlink())
    return ""
