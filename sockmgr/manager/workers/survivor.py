"""A worker that outlived its manager, as the next one finds it. Decides and does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sockmgr.fleet.snapshot import ProcessSnapshot
from sockmgr.kernel.process import Process

# What each descriptor is that the next manager needs to own a worker: with the name of the worker
# before it, `web@7.2/pidfd`, it is what the descriptor is stored under.
PIDFD = "pidfd"
OUTPUT = "output"  # our end of what the worker prints to, or of its stderr ...
OUTPUTS = (OUTPUT, "stdout")  # ... if its stdout is another pipe
CHANNEL = "channel"  # our end of the socketpair through which it is passed connections
CHANNEL_OF_WORKER = "channel-of-worker"  # the other end, from which we take back what it leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A worker that another manager started, and what that wrote down of it.

    `outputs` are our ends of its output, or of its stderr, and of its stdout if that is apart; -1
    for what is not there. `channel`: both ends of the one through which it is passed connections,
    ours first.
    """

    process: Process
    outputs: tuple[int, ...]
    since: float
    was: ProcessSnapshot
    channel: tuple[int, int] | None = None
