"""What a process and its descendants use of the machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a worker, or the manager, uses; None stands for a value that could not be read.

    `cpu` is the share of one core in per cent, and `spent` the seconds of CPU since the start.
    `rss` and `pss` are in bytes. `connections` is how many connections to the listeners are open.
    Of its cgroup: the bytes of `memory`, the seconds that it was `stalled` for lack of each
    resource, and for how much of the last 10 s by that which it lacked most, in per cent.
    """

    cpu: float | None = None
    spent: float | None = None
    rss: int | None = None
    pss: int | None = None
    connections: int | None = None
    memory: int | None = None
    stalled: Mapping[str, float] | None = None
    pressure: float | None = None
