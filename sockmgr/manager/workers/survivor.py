"""A worker that outlived its manager, as the next one finds it. Decides and does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sockmgr.kernel.process import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A worker that another manager started. `output` is our end of its output, -1 without one.

    `told`: it was told to stop, by whomever. `channel`: both ends of the one through which it is
    passed connections, ours first. `told_others`: the descendants that were, by pid and start.
    """

    process: Process
    output: int
    since: float
    ready: bool
    told: bool
    channel: tuple[int, int] | None = None
    told_others: tuple[tuple[int, int], ...] = ()
