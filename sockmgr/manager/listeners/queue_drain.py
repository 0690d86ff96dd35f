"""The wait until queues that are not fed any more are empty for good, of many queues at once.

A handshake that began while a queue was fed still ends there, so first those are outlasted.
Owns the patience with clients that it shortens meanwhile, and gives it back.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Collection, Mapping

from sockmgr.kernel import handshakes, queues
from sockmgr.kernel.steering.admission import restore_handshakes, shorten_handshakes
from sockmgr.kernel.steering.pool import settle
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.shared_call import SharedCall

_log = Log("sockmgr.queue_drain")

LOOK_DELAY = 0.005  # a queue that becomes empty has no event
# Seconds after which no handshake that was shortened goes on: 7 if its client repeats the SYN.
# What is still half-open then belongs to another queue or to another listener on this port.
GIVEN_UP = 10.0

_settled = SharedCall(settle)
_half_open = {
    family: SharedCall(functools.partial(handshakes.half_open, family))
    for family in (socket.AF_INET, socket.AF_INET6)
}

_Queues = tuple[socket.socket, ...]


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
        self._waiting: dict[int, list[_Queues]] = {lease: [] for lease in leases}
        self._shortened: set[socket.socket] = set()
        self._unfed: dict[Listener, list[socket.socket]] = {}
        # Where all leases wait for all queues, they wait for one tuple, which is looked at once:
        # it would be the square of them otherwise.
        shared: dict[Listener, _Queues] = {}
        for lease, listeners in leases.items():
            for listener in listeners:
                if listener not in shared:
                    mine = tuple(listener.unfinished(lease))
                    self._unfed.setdefault(listener, []).extend(mine)
                    if listener.is_refusing:
                        shared[listener] = mine
                self._waiting[lease].append(shared.get(listener, mine))

    async def run(self) -> None:
        """Wait for all of them.

        The membarrier(2) and the look at the handshakes are those of all drains that begin now.
        """
        if any(self._unfed.values()):
            await _settled()
        for listener, unfed in self._unfed.items():
            if listener.has_handshakes:
                await self._outlast_handshakes(listener, unfed)
        # Handshakes are over: a queue that is empty now has no way to get another connection.
        while self._waiting:
            for lease in self._quiet():
                del self._waiting[lease]
                self._tell(lease)
            await asyncio.sleep(LOOK_DELAY)

    def _quiet(self) -> list[int]:
        """Return the leases whose queues are empty now; each queue is asked once."""
        full = {key: any(map(_holds, each)) for key, each in self._distinct().items()}
        return [n for n, mine in self._waiting.items() if not any(full[id(each)] for each in mine)]

    def _distinct(self) -> dict[int, _Queues]:
        return {id(each): each for mine in self._waiting.values() for each in mine}

    def leave_out(self, lease: int) -> bool:
        """Wait for this one no longer: it is fed again, or given up; tell whether any is left."""
        mine = self._waiting.pop(lease, ())
        if self._shortened:
            # A queue that is fed again must be as patient with slow clients as it was configured.
            for queue in (queue for each in mine for queue in each):
                self._restore(queue)
        return bool(self._waiting)

    async def _outlast_handshakes(self, listener: Listener, unfed: list[socket.socket]) -> None:
        unfed = [queue for queue in unfed if queue.fileno() >= 0]  # closed meanwhile
        if not unfed:
            return
        # A client that is slow to complete its handshake would hold up the drain for a minute.
        waiting = {queue for mine in self._distinct().values() for queue in mine}
        for queue in waiting.intersection(unfed):
            shorten_handshakes(queue)
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
                restore_handshakes(queue)


def _holds(queue: socket.socket) -> bool:
    return queue.fileno() >= 0 and bool(queues.queued(queue))


async def _see_handshakes_end(listener: Listener, queue: socket.socket) -> None:
    port = queue.getsockname()[1]
    try:
        waiting = (await _half_open[queue.family]()).get(port, frozenset())
        while waiting:
            await asyncio.sleep(0.01)
            waiting = await asyncio.to_thread(handshakes.still_open, waiting)
    except OSError as error:
        _log.debug("no sock_diag", listener=listener.listen.name, error=error)
        await asyncio.sleep(GIVEN_UP)
