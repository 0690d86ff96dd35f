"""Which listeners of one service still take new clients: they refuse, end or change queues here.

A listener may belong to several services, and stays open for as long as the config has it. So each
step first asks the neighbours, the other services of the manager. Owns no listener.
"""

from __future__ import annotations

from typing import Protocol

from sockmgr.config.spec import Address
from sockmgr.fleet.messages import Phase
from sockmgr.fleet.records import FleetRecords
from sockmgr.manager.service.lease_map import LeaseMap


class Neighbours(Protocol):
    """The other services of the manager, as far as they concern the listeners of `service`."""

    def keep(self, address: Address, service: str) -> bool:
        """Tell whether a listener goes on when `service` needs it no more."""

    def share(self, address: Address, service: str) -> bool:
        """Tell whether another service uses the listener as well."""


class Intake:
    """The listeners of the service called `name`, found by `users`."""

    def __init__(self, name: str, users: LeaseMap, neighbours: Neighbours) -> None:
        self._name, self._users, self._neighbours = name, users, neighbours

    def end(self, fleet: FleetRecords) -> None:
        """Refuse new clients everywhere, since the service stops; those who wait stay."""
        for address in addresses(fleet):
            if not self._neighbours.keep(address, self._name):
                self._users.listener(address).end()

    def refuse_removed(self, fleet: FleetRecords) -> bool:
        """Refuse new clients at listeners that the generation just committed has not.

        Return whether there are any. The retiring generations still serve who waits there.
        """
        removed = {
            address
            for generation in fleet.generations.values()
            if fleet.current and generation.phase is Phase.RETIRING
            for address in generation.spec.removed(fleet.current.spec)
        }
        for address in removed:
            if not self._neighbours.keep(address, self._name):
                self._users.listener(address).refuse()
        return bool(removed)

    def renew(self, fleet: FleetRecords, address: Address, lease: int) -> None:
        """Put a new queue in the place of a lease that nobody holds any more."""
        # A neighbour has leases of its own, with the same numbers, on the queues of this listener.
        if address in addresses(fleet) and not self._neighbours.share(address, self._name):
            self._users.listener(address).renew(lease)


def addresses(fleet: FleetRecords) -> frozenset[Address]:
    """Return the addresses that some living generation uses, or the next one will."""
    specs = [generation.spec for generation in fleet.generations.values()]
    if fleet.pending:
        specs.append(fleet.pending.spec)
    return frozenset(listen.address for spec in specs for listen in spec.listen)
