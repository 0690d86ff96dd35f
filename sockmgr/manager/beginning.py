"""How a manager begins: by what its config says, or where its predecessor was.

Both open the listeners first and start or adopt the workers later. Between the two the manager
makes all that a worker needs: the notify socket, the handover, the task group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Spec
from sockmgr.fleet.snapshot import Snapshot
from sockmgr.fleet.together import resolved
from sockmgr.log import Log
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.service.lease_map import specs
from sockmgr.manager.service.verdicts import ignore_progress
from sockmgr.manager.services import Services
from sockmgr.manager.takeover.lost_state import guessed
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.strangers import end_strangers
from sockmgr.manager.workers.survivor import Survivor

log = Log("sockmgr")


@dataclass(frozen=True, slots=True)
class FromConfig:
    """Begin with the `specs` of the config, since no state of a predecessor can be used."""

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
        self.services.check_probes(self.specs)

    def start(self, predecessor: Predecessor) -> None:
        """Start all services; workers that a predecessor left serve until others replace them."""
        # Workers whose state is lost still serve, and are stopped only when others have replaced
        # them: by a rollout, as if the config had changed.
        fresh: list[Spec] = []
        for spec in self.specs:
            service = self.services.add(spec.service)
            service.processes.moves.adopt(predecessor.descriptors)
            if strangers := predecessor.take_strangers(spec.service):
                listeners = [self.listeners.at(listen.address) for listen in spec.listen]
                service.resume(guessed(spec, strangers, listeners), strangers)
                service.reload(spec, ignore_progress)
            else:
                fresh.append(spec)
        self.services.start(fresh)


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
        self.services.newest = self.services.found = self.state.newest
        self.listeners.resume(self.state.listeners, predecessor.take_sockets())
        # A removal that was under way is forgotten, as any stop is; the config may have it again.
        for listen in self.state.config.listen:
            self.listeners.at(listen.address).admit()

    def start(self, predecessor: Predecessor) -> None:
        """Adopt the workers, and end processes that have our sockets though no record names them.

        Such a process was started in the very moment in which the predecessor died.
        """
        for service in resolved(self.state.services):
            adopted = self.services.add(service.name)
            adopted.processes.moves.adopt(predecessor.descriptors)
            adopted.processes.figures.ended |= self.state.figures.get(service.name, {})
            adopted.processes.comparing.course = self.state.courses.get(service.name)
            if service.hook:
                adopted.hooks.adopt(service.hook, predecessor.descriptors)
            adopted.resume(service, predecessor.take_survivors(service))
            adopted.replace_unheard()
        # All workers are known by now, so any other process with these sockets is a stranger.
        end_strangers(self._strangers(predecessor), self.known())

    def _strangers(
        self, predecessor: Predecessor
    ) -> Iterator[tuple[Spec, Collection[Survivor], Set[int]]]:
        for service in self.services:
            if running := specs(service.fleet):  # else it has stopped
                mine = (x for x in self.state.listeners if x.listen.address in service.addresses)
                sockets = {inode for each in mine for inode in each.inodes}
                yield running[-1], predecessor.take_strangers(service.name).values(), sockets
