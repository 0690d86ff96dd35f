"""Which listeners of one service still take new clients: here they refuse, end or change queues.

A listener may belong to several services, and stays open for as long as the config has it. So each
step first asks the neighbours, which are the other services of the manager. Owns no listener.
"""

from __future__ import annotations

from typing import Protocol

from sockmgr.config.spec import Address, Spec
from sockmgr.fleet.messages import Phase
from sockmgr.fleet.records import FleetRecords
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.service.lease_map import LeaseMap, addresses
from sockmgr.manager.service.owners import Owners


class Neighbours(Protocol):
    """The other services of the manager, as far as they concern the listeners of `service`."""

    def keep(self, address: Address) -> bool:
        """Return whether some service has a listener, or will, and does not only drain there."""

    @property
    def owners(self) -> Owners:
        """Who has the clients of each listener."""

    def accept_found(self, service: str) -> None:
        """Have the config in force say of `service` what a manager before us had loaded."""

    @property
    def all_stop(self) -> bool:
        """Whether the manager is to end, and not only some services."""

    def heed(self, service: str) -> None:
        """Look what the last fact of `service` means for those that wait for it, or it for them."""


class Intake:
    """The listeners of the service called `name`, found by `lease_map`."""

    def __init__(self, name: str, lease_map: LeaseMap, neighbours: Neighbours) -> None:
        self._name, self._lease_map, self._neighbours = name, lease_map, neighbours

    def unserved(self, spec: Spec) -> list[Listener]:
        """Return the listeners of a spec at which no other service serves.

        A reload may exchange listeners between services, and until then the other one has it.
        """
        others = self._neighbours.owners.elsewhere(self._name)
        return [each for each in self._lease_map.of(spec) if each.listen.address not in others]

    def end(self, fleet: FleetRecords) -> None:
        """Refuse new clients everywhere, since the service stops; clients that wait may stay."""
        for address in addresses(fleet):
            if self._neighbours.keep(address):
                continue
            listener = self._lease_map.listener(address)
            # A service that was removed may come back by the next reload, while its workers drain
            # still: only refuse() can be undone by any user.
            if self._neighbours.all_stop or listener.systemds:
                listener.end(fleet.leases)
            else:
                listener.refuse()

    def refuse_removed(self, fleet: FleetRecords) -> bool:
        """Refuse new clients at listeners that the committed generation no longer has.

        Return whether there are any. Retiring generations still serve the clients that wait there.
        """
        removed = {
            address
            for generation in fleet.generations.values()
            if fleet.current and generation.phase is Phase.RETIRING
            for address in generation.spec.removed(fleet.current.spec)
        }
        # It is removed from this service only: another one may have it, or get it in this reload.
        for address in removed:
            if not self._neighbours.keep(address):
                self._lease_map.listener(address).refuse()
        return bool(removed)

    def renew(self, fleet: FleetRecords, address: Address, lease: int) -> None:
        """Put a new queue in the place of a lease that nobody holds any more."""
        # A neighbour has leases of its own, with the same numbers, on the queues of this listener.
        if address in addresses(fleet) and not self._neighbours.owners.shares(self._name, address):
            self._lease_map.listener(address).renew(lease)
