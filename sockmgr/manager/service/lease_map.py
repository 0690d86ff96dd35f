"""Which listeners belong to a lease: those of the generation that has it, or of one of its workers.

And whether the workers of a lease accept connections or are passed them. Looks at the records of a
fleet; owns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sockmgr.config.spec import Accept, Address, Spec
from sockmgr.fleet.messages import Phase
from sockmgr.fleet.records import FleetRecords
from sockmgr.manager.listeners.listener import Listener


@dataclass(frozen=True, slots=True)
class LeaseMap:
    """The listeners of one service, found by their addresses."""

    listener: Callable[[Address], Listener]

    def of(self, spec: Spec) -> tuple[Listener, ...]:
        """Return the listeners of a spec, in its order."""
        return tuple(self.listener(listen.address) for listen in spec.listen)

    def fed(self, fleet: FleetRecords, leases: Iterable[int]) -> dict[int, tuple[Listener, ...]]:
        """Return each of `leases` with the listeners of the workers that take connections there.

        A lease that no worker has yet gets the listeners of the generation that serves.
        """
        serving = fleet.serving
        return self._find(fleet, leases, self.of(serving.spec) if serving else ())

    def unquiet(
        self, fleet: FleetRecords, addresses: Collection[Address]
    ) -> dict[int, tuple[Listener, ...]]:
        """Return the leases whose queues may still hold connections, each with its listeners.

        For a lease whose generation is gone, these are the listeners at `addresses`.
        """
        every = tuple(self.listener(address) for address in addresses)
        return self._find(fleet, fleet.unquiet, every)

    def parting(self, fleet: FleetRecords) -> dict[int, tuple[Listener, ...]]:
        """Return the leases that are fed no more, but served, with their listeners."""
        fed = dict(fleet.fed)
        return {
            lease: self.of(generation.spec)
            for generation in fleet.generations.values()
            for lease in generation.served
            if lease not in fed and generation.phase is not Phase.BOOTING
        }

    def _find(
        self, fleet: FleetRecords, leases: Iterable[int], unknown: tuple[Listener, ...]
    ) -> dict[int, tuple[Listener, ...]]:
        found: dict[int, dict[Listener, None]] = {}
        for generation in fleet.generations.values():
            listeners = dict.fromkeys(self.of(generation.spec))
            for lease in generation.leases:
                found.setdefault(lease, {}).update(listeners)
        return {lease: tuple(found.get(lease, ())) or unknown for lease in leases}


@dataclass(frozen=True, slots=True)
class LeaseModes:
    """Which leases are `passed` connections, and which `accept` for themselves.

    `parting` leases get no new connections, but their workers still accept: only they hold the
    queues of a listener that the newer generation does not have.
    """

    passed: frozenset[int] = frozenset()
    accept: frozenset[int] = frozenset()
    parting: Mapping[int, tuple[Listener, ...]] = field(default_factory=dict)


def lease_modes(fleet: FleetRecords, users: LeaseMap) -> LeaseModes:
    """Return the modes of all leases that are in use."""
    generations = fleet.generations.values()
    passed = {n for g in generations if g.spec.accept is Accept.DISPATCH for n in g.leases}
    accept = {n for g in generations if g.spec.accept is not Accept.DISPATCH for n in g.leases}
    serving = fleet.serving
    if serving and serving.spec.accept is Accept.DISPATCH:
        passed |= dict(fleet.fed).keys() - accept  # of the dead, until there are others
    return LeaseModes(frozenset(passed), frozenset(accept), users.parting(fleet))
