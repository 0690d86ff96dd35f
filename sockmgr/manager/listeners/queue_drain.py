"""The wait until queues that are not fed any more are empty for good, of many queues at once.

A handshake that began while a queue was fed still ends there, so first those are outlasted.
Owns the patience with clients that it shortens meanwhile, and gives it back.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping

from sockmgr.kernel import handshakes, queues, steering
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener

_log = Log("sockmgr.queue_drain")

LOOK_DELAY = 0.005  # a queue that becomes empty has no event
# Seconds after which no handshake that was shortened goes on: 7 if its client repeats the SYN.
# What is still half-open then belongs to another queue or to another listener on this port.
GIVEN_UP = 10.0


class QueueDrain:
    """The queues of some leases: of each lease those of its listeners, none of them fed.

    A queue that nobody accepts from is never quiet while something is in it: the caller has the
    deadline. Where new connections cannot be steered there is nothing to wait for.
    """

    def __init__(
        self, leases: Mapping[int, Collection[Listener]], tell: Callable[[int], None]
    ) -> None:
        """`tell` is called with each lease, when all of its queues are empty and stay so.

        Of a listener that refuses new connections, because it is to be closed, these are all.
        """
        self._tell = tell
        self._waiting: dict[int, list[socket.socket]] = {}
        self._shortened: set[socket.socket] = set()
        self._names: dict[Listener, list[socket.socket]] = {}
        for lease, listeners in leases.items():
            mine = [(each, queue) for each in listeners for queue in each.unfinished(lease)]
            self._waiting[lease] = [queue for _, queue in mine]
            for listener, queue in mine:
                self._names.setdefault(listener, []).append(queue)

    async def run(self) -> None:
        """Wait for all of them; one membarrier(2) and one look at the handshakes a listener."""
        for listener, unfed in self._names.items():
            await asyncio.to_thread(steering.settle)
            if listener.has_handshakes:
                await self._outlast_handshakes(listener, unfed)
        while self._waiting:
            for lease in [n for n, unfed in self._waiting.items() if not any(map(_holds, unfed))]:
                del self._waiting[lease]
                self._tell(lease)
            await asyncio.sleep(LOOK_DELAY)

    def leave_out(self, lease: int) -> bool:
        """Wait for this one no longer: it is fed again, or given up; tell whether any is left."""
        for queue in self._waiting.pop(lease, ()):
            self._restore(queue)
        return bool(self._waiting)

    async def _outlast_handshakes(self, listener: Listener, unfed: list[socket.socket]) -> None:
        unfed = [queue for queue in unfed if queue.fileno() >= 0]  # closed meanwhile
        if not unfed:
            return
        waiting = {queue for mine in self._waiting.values() for queue in mine}
        for queue in waiting.intersection(unfed):
            steering.shorten_handshakes(queue)
            self._shortened.add(queue)
        try:
            async with asyncio.timeout(GIVEN_UP):
                await _see_handshakes_end(listener, unfed[0])
        except TimeoutError:
            _log.debug("handshakes outwaited", listener=listener.listen.name, seconds=GIVEN_UP)
        finally:
            for queue in unfed:
                self._restore(queue)

    def _restore(self, queue: socket.socket) -> None:
        if queue in self._shortened:
            self._shortened.remove(queue)
            if queue.fileno() >= 0:
                steering.restore_handshakes(queue)


def _holds(queue: socket.socket) -> bool:
    return queue.fileno() >= 0 and bool(queues.queued(queue))


async def _see_handshakes_end(listener: Listener, queue: socket.socket) -> None:
    port = queue.getsockname()[1]
    try:
        waiting = await asyncio.to_thread(handshakes.half_open, queue.family, port)
        while waiting:
            await asyncio.sleep(0.01)
            waiting = await asyncio.to_thread(handshakes.still_open, waiting)
    except OSError as error:
        _log.debug("no sock_diag", listener=listener.listen.name, error=error)
        await asyncio.sleep(GIVEN_UP)
