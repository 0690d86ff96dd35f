"""What all workers of a manager are given by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sockmgr.fleet.messages import Fact, Spawn
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import WorkerOutput
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers.memory_reader import MemoryReader


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What a running worker needs from the manager.

    `output` makes the output of a worker, given its name and the descriptor that an earlier manager
    left of it. `helpers` returns the pids of our own processes that are nobody's workers.
    """

    loop: asyncio.AbstractEventLoop
    sink: Sink
    output: Callable[[str, int | None], WorkerOutput]
    notify_address: Callable[[], str]
    can_restore_priority: bool
    helpers: Callable[[], Collection[int]]
    memory: MemoryReader = field(default_factory=MemoryReader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which worker is to be, on which listeners, and `put`, which takes the facts about it."""

    command: Spawn
    listeners: Sequence[Listener]
    context: WorkerContext
    put: Callable[[Fact], None]
