"""What a worker uses of the machine, and the name it is shown under. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sockmgr.api.types import WorkerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a worker and its descendants use: a share of one core, bytes, a number.

    `spent` are seconds of CPU, ever. None is what could not be read.
    """

    cpu: float | None = None
    spent: float | None = None
    rss: int | None = None
    pss: int | None = None
    connections: int | None = None


def name_of(service: str, worker: WorkerStatus) -> str:
    """Return a worker's name."""
    return f"{service}@{worker.generation}.{worker.slot}"
