"""What is dispatched of one service, from the first worker on that is passed connections.

Reports to the service which workers take connections and which must be replaced; decides nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

from sockmgr.config.spec import Policy, Spec
from sockmgr.errors import ListenError
from sockmgr.fleet.messages import Fact, Recycle
from sockmgr.kernel.connected_pair import connected_pair
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.dispatch.service import Events, ServiceDispatch
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.service.client_watch import ClientWatch
from sockmgr.manager.service.lease_map import LeaseModes
from sockmgr.manager.workers.moves import MoveQueue
from sockmgr.manager.workers.worker import WorkerProcess

PROBE_PACE = 1.0  # seconds between two looks whether the dispatcher lives, while clients come


class Dispatching:
    """The workers that are passed connections, and the queue that the connections come from."""

    def __init__(self, name: str, dispatcher: Dispatcher, put: Callable[[Fact], None]) -> None:
        self._process, self._put = dispatcher, put
        events = Events(takes=self._takes, misbehaves=self._misbehaves)
        self._dispatch = ServiceDispatch(name, dispatcher, events)
        self._workers: dict[int, WorkerProcess] = {}
        self._taking: dict[int, asyncio.Event] = {}  # of each of them: that it takes connections
        self._queues: dict[str, int] = {}  # by listener
        self._clients = ClientWatch(asyncio.get_running_loop(), self._on_client)
        self._pause: asyncio.TimerHandle | None = None

    def attach(self, running: WorkerProcess, moves: MoveQueue | None = None) -> None:
        """Own the channel of this worker, and have the worker know when it takes connections.

        By `moves` it gives connections away, which the dispatcher takes and passes to others.
        """
        if running.channel is None:
            return
        spec = running.spec
        if not self._workers:
            self._dispatch.configure(spec.policy, spec.max_connections)
        if before := self._workers.get(running.lease):
            self.detach(before)  # it hangs or was killed, and has not ended yet
        keys = [str(listen.address) for listen in spec.listen]
        self._workers[running.lease], self._taking[running.lease] = running, asyncio.Event()
        # The process of one that its template is to make is known when it takes connections.
        pidfd = running.process.pidfd
        take = moves.take.fileno() if moves else -1
        self._dispatch.attach(running.lease, running.name, running.channel, keys, pidfd, take)
        self._watch_clients()

    def keep_queues(self, inodes: Collection[int]) -> None:
        """Let go of all move queues but these: they have been ended."""
        self._dispatch.end_queues(inodes)

    def detach(self, running: WorkerProcess) -> None:
        """Pass connections that this worker had not taken to others: it has ended or hangs.

        A worker that hangs may live on: its channel belongs to the dispatcher, and may be closed.
        """
        if self._workers.get(running.lease) is running:
            del self._workers[running.lease]
            self._taking.pop(running.lease).set()  # who waits for it sees that it is gone
            running.channel = None
            self._dispatch.detach(running.lease)

    def abandon(self, running: WorkerProcess) -> None:
        """Pass nothing more to a worker that is leaving, and give others what it has not taken."""
        if self._workers.get(running.lease) is running:
            self._dispatch.abandon(running.lease)

    def configure(self, spec: Spec, *, in_turn: bool) -> None:
        """Use the policy and the limit of the generation that serves now.

        `in_turn`: a canary has a share, which is exact only if workers take turns by their weights.
        """
        policy = Policy.ROUND_ROBIN if in_turn else spec.policy
        self._dispatch.configure(policy, spec.max_connections)

    def queue(self, listener: Listener, leases: Collection[int]) -> int:
        """Return which queue of a listener serves these leases: the former one if possible."""
        # A change of the queue would mean waiting until no handshake can end in the former one.
        if self._queues.get(key := _key(listener)) not in leases:
            self._queues[key] = next(iter(leases))
        return self._queues[key]

    def feed(
        self,
        weights: Mapping[int, int],
        listeners: Mapping[int, Collection[Listener]],
        modes: LeaseModes,
    ) -> None:
        """Pass each lease connections of its listeners; `modes` says whose queues are not ours."""
        keys = {lease: [_key(each) for each in listeners[lease]] for lease in weights}
        self._dispatch.feed(weights, keys, sorted(map(str, modes.meant)))
        self._dispatch.listen(_sources(listeners, modes))
        # What a dispatcher holds for us is lost if the next manager does not ask for it at once.
        if modes.meant and not self._dispatch.is_begun:
            self._dispatch.begin()
        self._watch_clients()

    def let_go(self) -> None:
        """Watch no queue until the next feed(): some may be closed and replaced."""
        self._clients.close()

    async def reach(self, lease: int, listener: Listener) -> socket.socket:
        """Return a connection of ours, the caller's, that this worker is passed, fed or not.

        It is as one that came to `listener`, and ends at once if it cannot be passed. A worker
        may say that it is ready before it has answered on its channel: that is waited for, for as
        long as the caller likes. Raises ListenError and OSError.
        """
        if taking := self._taking.get(lease):
            await taking.wait()
        if lease not in self._workers or self._process.is_missing:
            raise ListenError(
                "no connection can be passed now: there is no dispatcher, or no worker"
            )
        ends = await connected_pair(listener.queues[0])
        self._dispatch.give(lease, _key(listener), ends)
        return ends[0]

    def quiet(self, lease: int) -> asyncio.Future[None] | None:
        """Return a future for when this worker has taken all; None if it is passed nothing."""
        return self._dispatch.quiet(lease) if self._dispatch.is_begun else None

    def connections(self, lease: int) -> int | None:
        """Return how many connections a worker has; None if it accepts for itself."""
        return self._dispatch.open(lease) if lease in self._workers else None

    @property
    def accepted(self) -> int | None:
        """How many connections were accepted to be passed on; None if nothing is."""
        return self._dispatch.accepted if self._dispatch.is_begun else None

    @property
    def flaw(self) -> str:
        """Why nothing is passed to anybody, or nothing."""
        if self._dispatch.is_begun and self._process.is_missing:
            return "no dispatcher runs: new connections wait until there is one"
        return ""

    def close(self) -> None:
        self._clients.close()
        if self._pause:
            self._pause.cancel()
        self._dispatch.close()

    def _takes(self, lease: int) -> None:
        if running := self._workers.get(lease):
            self._dispatch.process(lease, running.process.pidfd)
            self._taking[lease].set()
            running.takes()

    def _misbehaves(self, lease: int, why: str) -> None:
        # The worker may have ended since: the dispatcher calls this in a later turn of the loop.
        if running := self._workers.get(lease):
            self._put(Recycle(worker=running.id, why=why))

    # A dispatcher that hangs says nothing, and one that is asked again and again never rests. So it
    # is asked when somebody comes.

    def _watch_clients(self) -> None:
        if self._pause is None and self._dispatch.is_begun:
            self._clients.close()
            self._clients.watch(self._dispatch.sources)

    def _on_client(self) -> None:
        self._process.probe()
        self._pause = asyncio.get_running_loop().call_later(PROBE_PACE, self._watch_again)

    def _watch_again(self) -> None:
        self._pause = None
        self._watch_clients()


def _key(listener: Listener) -> str:
    return str(listener.listen.address)


def _sources(
    listeners: Mapping[int, Collection[Listener]], modes: LeaseModes
) -> dict[socket.socket, str]:
    """Return all queues that are not somebody else's: a late handshake may end in any of them.

    None of a listener that nobody has who is passed connections: its clients would be closed.
    """
    leases: dict[Listener, set[int]] = defaultdict(set)
    for lease, mine in listeners.items():
        for each in mine:
            if each.listen.address in modes.meant:
                leases[each].add(lease)
    return {
        queue: _key(each)
        for each, ours in leases.items()
        for n, queue in enumerate(each.queues)
        if not (each.is_steered and (n in modes.accept or n in modes.foreign - ours))
        and not each.is_left_to_others(n)
    }
