"""How a manager begins: by what its config says, or where the manager before it was.

Both open the listeners first and start or adopt the workers later. Between the two the manager
makes all that a worker needs: the notify socket, the handover, the task group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Spec
from sockmgr.fleet.snapshot import Snapshot
from sockmgr.log import Log
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.service.verdicts import not_told
from sockmgr.manager.services import Services
from sockmgr.manager.takeover.handover import end_strangers
from sockmgr.manager.takeover.predecessor import Predecessor, guessed

log = Log("sockmgr")


@dataclass(frozen=True, slots=True)
class FromConfig:
    """Begin by `specs`, which the config says; no state of a manager before can be used."""

    specs: Sequence[Spec]
    services: Services
    listeners: Listeners

    def open(self, predecessor: Predecessor) -> None:
        """Open the listeners, with what systemd or a predecessor left. Raises ListenError."""
        if predecessor.flaw:
            log.error(EventKind.STATE_OF_ANOTHER_MANAGER_NOT_USED, because=predecessor.flaw,
                      workers="are replaced by a rollout")  # fmt: skip
        own = predecessor.own_queues  # take_queues() leaves none to ask about
        self.listeners.open(self.services.config.listen, predecessor.take_queues(), own)

    def start(self, predecessor: Predecessor) -> None:
        """Start all services; workers that a predecessor left serve until others replace them."""
        for spec in self.specs:
            service = self.services.add(spec.service)
            if strangers := predecessor.take_strangers(spec.service):
                listeners = [self.listeners.at(listen.address) for listen in spec.listen]
                service.resume(guessed(spec, strangers, listeners), strangers)
                service.reload(spec, not_told)
            else:
                service.start(spec)


@dataclass(frozen=True, slots=True)
class FromState:
    """Go on with what another manager ran: its config, listeners, generations and workers.

    `known` returns the pids of all processes that we know of: workers, and our own helpers.
    """

    state: Snapshot
    services: Services
    listeners: Listeners
    known: Callable[[], Collection[int]]

    def open(self, predecessor: Predecessor) -> None:
        """Own the sockets of the predecessor's listeners."""
        self.services.config = self.state.config
        self.listeners.resume(self.state.listeners, predecessor.take_sockets())

    def start(self, predecessor: Predecessor) -> None:
        """Adopt the workers, and end processes that have our sockets though no record names them.

        Such a process was started in the very moment in which the predecessor died.
        """
        for service in self.state.services:
            adopted = self.services.add(service.name)
            adopted.resume(service, predecessor.take_survivors(service))
            adopted.replace_unheard()
        inodes = {inode for listener in self.state.listeners for inode in listener.inodes}
        end_strangers(inodes, self.known())
