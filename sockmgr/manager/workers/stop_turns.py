"""The turn of each worker to get its stop signal, once the requests that are coming are answered.

Many servers that are told to stop close a connection on which only a part of a request has come.
Owns the workers that wait for their turn; who is to stop, and its deadline, is the fleet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sockmgr.kernel import unanswered
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers.slices import Slices

_log = Log("sockmgr.stop_turns")

PACE = 0.1  # seconds between two stop signals, but all are sent within a second
PATIENCE = 2.0  # seconds for which a worker is told later because of requests
SILENT = 1000  # milliseconds after which a client that sends nothing more is not waited for
LOOK, LAST_LOOK = 0.005, 0.1  # seconds between two looks at first, and at last
MANY = 1000  # connections, above which looking at each would take longer than the requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A worker that is to be told to stop, and the listeners by which it has its clients."""

    tell: Callable[[], None]
    listeners: tuple[Listener, ...]
    at_once: bool


class StopTurns:
    """The workers of one service that wait for their turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slices: Slices) -> None:
        self._loop, self._slices = loop, slices
        self._waiting: list[Turn] = []
        self._tasks: set[asyncio.Task[None]] = set()  # the loop has weak references only
        self._next_at = 0.0

    def add(self, turn: Turn, *, of: int) -> None:
        """Tell this worker, one of so many, when its clients' requests are answered.

        The workers that are added in one turn of the event loop wait together.
        """
        if not turn.listeners:
            self._tell(turn, of)
            return
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            task = self._loop.create_task(self._wait(of), name="last requests")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wait(self, of: int) -> None:
        turns, self._waiting = self._waiting, []
        await _see_answered({each for turn in turns for each in turn.listeners})
        for turn in turns:
            self._tell(turn, of)

    def _tell(self, turn: Turn, of: int) -> None:
        if turn.at_once:  # all of them end: no traffic is left that could feel it
            self._slices.add(turn.tell)
            return
        # One after the other: a process that ends takes a burst of CPU from live traffic.
        self._next_at = max(self._loop.time(), self._next_at)
        self._loop.call_at(self._next_at, turn.tell)
        self._next_at += min(PACE, 1 / of)


async def _see_answered(listeners: Iterable[Listener]) -> None:
    """Return when each client that is sending a request now has got something; see PATIENCE."""
    queues = (listener.queues[0] for listener in listeners)
    ports = {(each.family, each.getsockname()[1]) for each in queues if each.fileno() >= 0}
    try:
        waiting, delay = await asyncio.to_thread(_under_way, ports), LOOK
        async with asyncio.timeout(PATIENCE):
            while waiting:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_LOOK)
                if len(waiting) < MANY:
                    waiting = await asyncio.to_thread(unanswered.still, waiting, SILENT)
    except TimeoutError:
        _log.debug("requests outwaited", connections=len(waiting), seconds=PATIENCE)
    except OSError as error:  # sock_diag is refused, so nobody knows of any
        _log.debug("no sock_diag", error=error)


def _under_way(ports: Iterable[tuple[int, int]]) -> frozenset[unanswered.Unanswered]:
    return frozenset().union(*(unanswered.to_port(*each, SILENT) for each in ports))
