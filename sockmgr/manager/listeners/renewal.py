"""New queues for leases that nobody holds any more, so that no worker shares one with its heirs."""

from __future__ import annotations

from collections.abc import Callable

from sockmgr.config.spec import Accept, Address, Spec
from sockmgr.fleet.records import FleetRecords


class Renewal:
    """The leases that workers of one service have had since their queues were new."""

    def __init__(self, renew: Callable[[Address, int], None]) -> None:
        """`renew` puts a new queue of the listener at an address in the place of a lease."""
        self._renew = renew
        self._used: dict[int, set[Address]] = {}

    def given(self, lease: int, spec: Spec) -> None:
        """Note that a worker of this spec gets the queues of a lease."""
        if spec.accept is not Accept.DISPATCH:  # such a worker gets no listener
            addresses = (listen.address for listen in spec.listen)
            self._used.setdefault(lease, set()).update(addresses)

    def is_due(self, fleet: FleetRecords) -> bool:
        """Tell whether some leases are nobody's now."""
        return not self._used.keys() <= fleet.leases

    def perform(self, fleet: FleetRecords) -> None:
        """Renew the leases that are nobody's now; nobody may accept from their queues meanwhile."""
        # Not while it is fed or may hold connections: those would be reset.
        for lease in self._used.keys() - fleet.leases:
            for address in self._used.pop(lease):
                self._renew(address, lease)
