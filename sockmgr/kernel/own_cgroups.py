"""Find the cgroups v2 that we are in, which have limits of ours: cgroups(7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def directories() -> Iterator[Path]:
    """Yield the directory of our cgroup and of each above it, as far up as we can see.

    The last may have limits as well: in a cgroup namespace it is that of the container.
    """
    lines = read("/proc/self/cgroup").splitlines()
    inside = next((line[3:] for line in lines if line.startswith("0::")), "").strip("/")
    yield from (ROOT / inside, *(ROOT / inside).parents[: -len(ROOT.parents)])


def read(path: Path | str) -> str:
    """Return the text of a file, "" if it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
