"""Measure the memory that is free for us, and what processes use: /proc and cgroups."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sockmgr.kernel import own_cgroups
from sockmgr.kernel.procfs import resident


def available() -> int | None:
    """Return how many bytes can still be used without swapping, None if that is not known.

    It is the least of MemAvailable (proc_meminfo(5)) and of what each cgroup v2 above us has left.
    Page cache counts as free, because the kernel gives it back under pressure.
    """
    left = (_left_in(directory) for directory in own_cgroups.directories())
    found = [_field("/proc/meminfo", "MemAvailable:"), *left]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def used(pids: Iterable[int]) -> int:
    """Return the proportional set size (PSS) in bytes of those of the processes that we may see."""
    sizes = (_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids)
    return sum(size for size in sizes if size is not None)


def footprint(pids: Iterable[int], enough: int) -> int:
    """Return what processes have in memory, in bytes; their RSS, if that is not above `enough`.

    Else it is their PSS, in which pages that processes share count once, or the RSS of those that
    do not let us see that. RSS is never less, and costs next to nothing.
    """
    rss = {pid: resident(pid) for pid in pids}
    if sum(rss.values()) <= enough:
        return sum(rss.values())
    pss = {pid: _field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in rss}
    return sum(rss[pid] if size is None else size for pid, size in pss.items())


def _field(path: str, name: str) -> int | None:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return None
    return None


def _left_in(group: Path) -> int | None:
    limit = own_cgroups.read(group / "memory.max").strip()
    current = own_cgroups.read(group / "memory.current").strip()
    if not limit.isdecimal() or not current.isdecimal():
        return None
    cache = sum(
        int(line.split()[1])
        for line in own_cgroups.read(group / "memory.stat").splitlines()
        if line.startswith(("inactive_file ", "active_file "))
    )
    return max(0, int(limit) - int(current) + cache)
