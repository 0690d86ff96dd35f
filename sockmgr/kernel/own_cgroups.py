"""Find the cgroups v2 that we are in, which have limits of ours: cgroups(7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def root() -> Path:
    """Return where cgroups v2 are mounted: below those of v1, if there are both."""
    return ROOT if (ROOT / "cgroup.procs").exists() else ROOT / "unified"


def of(pid: int | str = "self") -> Path | None:
    """Return the directory of the cgroup v2 of a process; None if the process is gone."""
    lines = read(f"/proc/{pid}/cgroup").splitlines()
    inside = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    return None if inside is None else root() / inside


def directories() -> Iterator[Path]:
    """Yield the directory of our cgroup and of each above it, as far up as we can see.

    The last may have limits as well: in a cgroup namespace it is that of the container.
    """
    own = of() or root()
    yield from (own, *own.parents[: -len(root().parents)])


def read(path: Path | str) -> str:
    """Return the text of a file, "" if it cannot be read."""
    try:
        return Path(path).read_text(errors="surrogateescape")
    except OSError:
        return ""
