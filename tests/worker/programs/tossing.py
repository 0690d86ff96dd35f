"""The application of edges, in a worker that gives connections away at random, and serves on."""

import asyncio
import random
from typing import Any

import edges

from sockmgr.worker import server as runtime

app = edges.app
startup = runtime.Server.startup


async def start(self: runtime.Server, sockets: Any = None) -> None:
    """Begin to toss when all else has begun."""
    await startup(self, sockets)
    self.tossing = asyncio.create_task(toss(self))  # type: ignore[attr-defined]


async def toss(self: runtime.Server) -> None:
    """Try each connection at instants that nobody knows."""
    while True:
        await asyncio.sleep(random.uniform(0, 0.003))
        for connection in self._open():
            if random.random() < 0.5:
                self._drain.move(connection)


def move_soon(self: runtime.Server, connection: Any) -> None:
    """Try it when its answer is out, as in a drain."""
    if random.random() < 0.5:
        asyncio.get_running_loop().call_soon(self._drain.move, connection)


runtime.Server._move_soon = move_soon  # type: ignore[method-assign]
runtime.Server.startup = start  # type: ignore[method-assign]
