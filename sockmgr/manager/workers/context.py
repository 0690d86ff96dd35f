"""What all workers of a manager are given by it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sockmgr.fleet.messages import Fact, Spawn
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import WorkerOutput
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers.boot_priority import Boots
from sockmgr.manager.workers.cgroups import Cgroups
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.lookout import Lookout
from sockmgr.manager.workers.memory_reader import MemoryReader
from sockmgr.manager.workers.moves import MoveQueue
from sockmgr.manager.workers.private_socket import PrivateSocket
from sockmgr.manager.workers.slices import Slices


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What a running worker needs from the manager.

    `output` makes the output of a worker, given its name and the descriptors that a predecessor
    left of it. `family` knows the processes of all workers, `lookout` looks at those that start.
    `slices` take what is to be done at many of them at once, and `cgroups` makes theirs.
    """

    loop: asyncio.AbstractEventLoop
    sink: Sink
    output: Callable[[str, tuple[int, ...]], WorkerOutput]
    notify_address: Callable[[], str]
    boots: Boots
    family: Family
    lookout: Lookout
    dispatcher: Dispatcher
    # All workers share one reader, which starts a process only when it is first needed.
    memory: MemoryReader = field(default_factory=MemoryReader)
    slices: Slices = field(default_factory=Slices)
    cgroups: Cgroups = field(default_factory=Cgroups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which worker is to be, on which listeners, and `put`, which takes the facts about it.

    `reach` returns a connection of ours, the caller's, that this worker (if it shares a queue, its
    generation) gets from one of the listeners, though it may not be fed, and that nobody else can
    make: a socket that does not block. It has no deadline, and raises ListenError and OSError.
    `asks` tells whether it has to pass a probe to be ready, `is_fed` whether clients come to its
    queue. By `moves` it gives connections to others and takes theirs, and by `private` only we
    connect; both are borrowed, None without. Its own metrics are in the directory `metrics`.
    """

    command: Spawn
    listeners: Sequence[Listener]
    context: WorkerContext
    put: Callable[[Fact], None]
    reach: Callable[[Listener], Awaitable[socket.socket]]
    asks: Callable[[], bool]
    is_fed: Callable[[], bool]
    moves: MoveQueue | None = None
    private: PrivateSocket | None = None
    metrics: str = ""
