"""What a worker may use of the machine at most, and what its cgroup is told of that. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of the cgroup of each worker: bytes, a weight, a number; None is no limit."""

    memory_high: int | None = None
    memory_max: int | None = None
    cpu_weight: int | None = None
    pids_max: int | None = None

    @property
    def keys(self) -> list[str]:
        return [key for key in _FILES if getattr(self, key) is not None]

    def writes(self) -> tuple[Write, ...]:
        """Return what puts them in force."""
        found = [Write(key, _FILES[key], str(getattr(self, key))) for key in self.keys]
        if self.memory_max is not None:
            # A worker is its whole tree: half of one would serve on, and badly.
            found.append(Write("memory_max", "memory.oom.group", "1"))
        return tuple(found)


class Write(NamedTuple):
    """A value for a file of a cgroup, which is there with its controller; `key` is ours."""

    key: str
    file: str
    value: str

    @property
    def controller(self) -> str:
        return self.file.partition(".")[0]


_FILES = {
    "memory_high": "memory.high",
    "memory_max": "memory.max",
    "cpu_weight": "cpu.weight",
    "pids_max": "pids.max",
}
