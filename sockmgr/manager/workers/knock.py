"""Knocks at a worker that cannot be looked at: a connection of ours that is accepted is a sign.

Owns the task that asks. Some containers show nobody what the processes of another user wait in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sockmgr.config.probe import TcpProbe
from sockmgr.kernel import connections
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers.asking import prober
from sockmgr.manager.workers.context import Assignment

ASKED = (
    "each counts as ready when its generation accepts a connection of the manager's own",
    'CAP_SYS_PTRACE, ready = "notify" or the probe of its own would say more exactly',
)
NOT_SEEN = (
    "one that does not show its epoll never becomes ready: no connection leads to it alone",
    'give the manager CAP_SYS_PTRACE, or use ready = "notify", or `exec` with accepting = false',
)


def door_of(listeners: Sequence[Listener]) -> Listener | None:
    """Return a listener by which a generation can be reached alone, and seen to accept."""
    for listener in listeners:
        if not listener.why_unreachable:
            try:
                connections.to_addresses([listener.address])
            except OSError:  # sock_diag(7) is refused: nothing would tell who has accepted
                return None
            return listener
    return None


class Knock:
    """Asks until the worker has accepted, and then calls `done`; `seen` is what was wrong last."""

    def __init__(self, whom: Assignment, door: Listener, done: Callable[[], None]) -> None:
        self.seen = f"no connection to {door.listen.name} was accepted yet"
        self._prober = prober(whom, TcpProbe(listener=door.listen.name))
        self._done = done
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._ask(), name="knock")

    def close(self) -> None:
        if self._task:
            self._task.cancel()
            self._task = None

    async def _ask(self) -> None:
        while seen := await self._prober.ask():
            self.seen = seen
            await asyncio.sleep(self._prober.probe.every)
        self._task = None  # done() closes this
        self._done()
