"""What a process and its descendants use of the machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a worker, or the manager, uses; None stands for a value that could not be read.

    `cpu` is the share of one core in per cent, and `spent` the seconds of CPU since the start.
    `rss` and `pss` are in bytes. `connections` is how many connections to the listeners are open.
    """

    cpu: float | None = None
    spent: float | None = None
    rss: int | None = None
    pss: int | None = None
    connections: int | None = None
