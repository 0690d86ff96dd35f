"""What memory is free for us, and what processes use. Reads /proc and cgroups; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Return the bytes that can still be used without swapping, None where nobody can tell.

    The least of MemAvailable (proc_meminfo(5)) and what each cgroup v2 above us has left. Page
    cache counts as free: the kernel gives it back under pressure.
    """
    found = [_field("/proc/meminfo", "MemAvailable:"), *_left_in_cgroups()]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def used(pids: Iterable[int]) -> int:
    """Return the proportional set size (PSS) of these processes, as far as we may see it."""
    sizes = (_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids)
    return sum(size for size in sizes if size is not None)


def _field(path: str, name: str) -> int | None:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return None
    return None


def _left_in_cgroups() -> Iterable[int | None]:
    group = next(
        (line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), ""
    ).strip("/")
    directory = _CGROUPS / group
    while directory != _CGROUPS and _CGROUPS in directory.parents:
        yield _left_in(directory)
        directory = directory.parent


def _left_in(group: Path) -> int | None:
    limit = "".join(_lines(group / "memory.max"))
    current = "".join(_lines(group / "memory.current"))
    if not limit.isdecimal() or not current.isdecimal():
        return None
    cache = sum(
        int(line.split()[1])
        for line in _lines(group / "memory.stat")
        if line.startswith(("inactive_file ", "active_file "))
    )
    return max(0, int(limit) - int(current) + cache)


def _lines(path: Path | str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
