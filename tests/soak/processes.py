"""What the processes of a manager hold while a soak goes on, and whether that stays the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash_points.places import Place

FDS, THREADS = 3, 0  # as many more are none that leak
SHARE, KIB = 1.25, 4096  # so much more memory, beside that of an allocator that settles


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one process has; `rss` is in KiB."""

    pid: int
    rss: int
    fds: int
    threads: int
    children: int

    def __str__(self) -> str:
        return (
            f"{self.rss / 1024:.1f} MiB, {self.fds} descriptors, {self.threads} threads, "
            f"{self.children} children"
        )


def look(place: Place) -> dict[str, Held]:
    """Look at the manager, and at what it has besides workers; a place at rest has all."""
    pids = {"manager": place.manager, "keeper or guard": place.watcher}
    if pid := place.status()["manager"]["dispatcher"]:
        pids["dispatcher"] = place.outside(pid)
    return {role: _held(pid) for role, pid in pids.items()}


def _held(pid: int) -> Held:
    process = Path("/proc", str(pid))
    lines = (process / "status").read_text().splitlines()
    found = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    children = process.joinpath("task", str(pid), "children").read_text().split()
    return Held(
        pid=pid, rss=int(found["VmRSS"][0]), threads=int(found["Threads"][0]),
        fds=len(list((process / "fd").iterdir())), children=len(children),
    )  # fmt: skip


def grown(looks: Iterable[dict[str, Held]]) -> Iterator[str]:
    """Yield a line for each process that has grown from the first look at it to the last."""
    first: dict[tuple[str, int], Held] = {}
    last: dict[tuple[str, int], Held] = {}
    for each in looks:
        for role, held in each.items():
            first.setdefault((role, held.pid), held)
            last[role, held.pid] = held
    for key, now in last.items():
        was = first[key]
        if (
            now.fds > was.fds + FDS
            or now.threads > was.threads + THREADS
            or now.children > was.children
            or now.rss > was.rss * SHARE + KIB
        ):
            yield f"{key[0]}: {was}, and at the end {now}"
