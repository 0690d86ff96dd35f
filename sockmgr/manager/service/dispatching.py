"""The dispatcher of one service, from its first worker on that is passed connections.

Tells the service which workers take connections and which are to be replaced; decides nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping

from sockmgr.config.spec import Spec
from sockmgr.fleet.messages import Fact, Recycle
from sockmgr.manager.dispatch.dispatcher import Dispatcher, Events
from sockmgr.manager.dispatch.scheduler import Scheduler
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers.worker import WorkerProcess


class Dispatching:
    """Who is passed connections, by lease, and the kernel's queue that they come from."""

    def __init__(self, put: Callable[[Fact], None]) -> None:
        self._put = put
        self._dispatcher: Dispatcher | None = None
        self._scheduler: Scheduler
        self._workers: dict[int, WorkerProcess] = {}
        self._queue = -1
        self._weights: Mapping[int, int] = {}
        self._keys: Mapping[int, Collection[str]] = {}
        self._sources: dict[socket.socket, str] = {}

    def attach(self, running: WorkerProcess) -> None:
        """Own the channel of this worker, and tell it when it takes connections."""
        if running.channel is None:
            return
        spec = running.spec
        if self._dispatcher is None:
            self._scheduler = Scheduler(spec.policy, spec.max_connections)
            events = Events(takes=self._takes, misbehaves=self._misbehaves)
            self._dispatcher = Dispatcher(asyncio.get_running_loop(), self._scheduler, events)
            self._go_on(self._dispatcher)
        if before := self._workers.get(running.lease):
            self.detach(before)  # it hangs or was killed, and has not ended yet
        keys = [str(listen.address) for listen in spec.listen]
        self._workers[running.lease] = running
        self._dispatcher.attach(running.lease, running.name, running.channel, keys)

    def detach(self, running: WorkerProcess) -> None:
        """Know that this worker is gone: what it had not taken goes to others.

        It may live on for a while: its channel is not its own any more, and may be closed.
        """
        if self._dispatcher and self._workers.get(running.lease) is running:
            del self._workers[running.lease]
            running.channel = None
            self._dispatcher.detach(running.lease)

    def abandon(self, running: WorkerProcess) -> None:
        """Pass this worker nothing any more, and others what it has not taken: it is leaving."""
        if self._dispatcher and self._workers.get(running.lease) is running:
            self._dispatcher.abandon(running.lease)

    def configure(self, spec: Spec) -> None:
        """Go by the policy of what serves now."""
        if self._dispatcher:
            self._scheduler.configure(spec.policy, spec.max_connections)

    def queue(self, leases: Collection[int]) -> int:
        """Return the queue that new connections of these leases come from: as before, if it can."""
        if self._queue not in leases:
            self._queue = next(iter(leases))
        return self._queue

    def feed(
        self,
        weights: Mapping[int, int],
        users: Mapping[int, Collection[Listener]],
        others: Collection[int],
    ) -> None:
        """Pass each of these leases what comes at its listeners; `others` accept for themselves."""
        self._weights = dict(weights)
        self._keys = {lease: [_key(each) for each in users[lease]] for lease in weights}
        self._sources = _sources({each for mine in users.values() for each in mine}, others)
        if self._dispatcher:
            self._go_on(self._dispatcher)

    def let_go(self) -> None:
        """Touch no queue until the next feed(): some may be closed and replaced."""
        if self._dispatcher:
            self._dispatcher.listen({})

    def _go_on(self, dispatcher: Dispatcher) -> None:
        dispatcher.listen(self._sources)
        dispatcher.feed(self._weights, self._keys)

    def quiet(self, lease: int) -> asyncio.Future[None] | None:
        """Return what is done when this worker has taken all; None if it is passed nothing."""
        return self._dispatcher.quiet(lease) if self._dispatcher else None

    def connections(self, lease: int) -> int | None:
        """Return how many connections a worker has; None if it accepts for itself."""
        return self._dispatcher.open(lease) if self._dispatcher and lease in self._workers else None

    @property
    def accepted(self) -> int | None:
        """How many connections were accepted to be passed on; None if nothing is."""
        return self._dispatcher.accepted if self._dispatcher else None

    def close(self) -> None:
        """Accept no more."""
        if self._dispatcher:
            self._dispatcher.close()
            self._dispatcher = None

    def _takes(self, lease: int) -> None:
        if running := self._workers.get(lease):
            running.takes()

    def _misbehaves(self, lease: int, why: str) -> None:
        if running := self._workers.get(lease):
            self._put(Recycle(worker=running.id, why=why))


def _key(listener: Listener) -> str:
    return str(listener.listen.address)


def _sources(listeners: Collection[Listener], others: Collection[int]) -> dict[socket.socket, str]:
    """Return all queues that nobody else accepts from: what a handshake began late ends there."""
    return {
        queue: _key(listener)
        for listener in listeners
        for n, queue in enumerate(listener.queues)
        if not (listener.is_steered and n in others) and not listener.is_left_to_others(n)
    }
