"""Which listeners belong to a lease: those of the generation that has the lease.

Also whether the workers of a lease accept connections or are passed them, and who takes those that
others give away. Reads the records of a fleet; owns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from sockmgr.config.spec import Accept, Address, Spec
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Phase
from sockmgr.fleet.records import FleetRecords
from sockmgr.manager.listeners.listener import Listener


@dataclass(frozen=True, slots=True)
class LeaseMap:
    """The listeners of one service, found by their addresses."""

    listener: Callable[[Address], Listener]

    def of(self, spec: Spec) -> tuple[Listener, ...]:
        """Return the listeners of a spec, in its order."""
        return tuple([self.listener(listen.address) for listen in spec.listen])

    def fed(self, fleet: FleetRecords, leases: Iterable[int]) -> dict[int, tuple[Listener, ...]]:
        """Return each of `leases` with the listeners of the workers that take connections there.

        A lease that no worker has yet gets the listeners of all that clients are meant for.
        """
        serving = [each for each in (fleet.serving, fleet.trial) if each and each.may_be_met]
        meant = [each for each in serving if each is fleet.serving or each.is_met]
        every = tuple(dict.fromkeys(x for each in meant for x in self.of(each.spec)))
        met = [each for each in fleet.generations.values() if each.may_be_met]
        return self._find(met, leases, every)

    def unquiet(
        self, fleet: FleetRecords, addresses: Collection[Address]
    ) -> dict[int, tuple[Listener, ...]]:
        """Return the leases whose queues may still hold connections, each with its listeners.

        For a lease whose generation is gone, these are the listeners at `addresses`.
        """
        every = tuple(self.listener(address) for address in addresses)
        return self._find(fleet.generations.values(), fleet.unquiet, every)

    def parting(self, fleet: FleetRecords) -> dict[int, tuple[Listener, ...]]:
        """Return the leases that are no longer fed but still served, each with its listeners."""
        fed, found = dict(fleet.fed).keys(), dict[int, tuple[Listener, ...]]()
        for generation in fleet.generations.values():
            if generation.phase is not Phase.BOOTING:
                found |= dict.fromkeys(generation.served - fed, self.of(generation.spec))
        return found

    def _find(
        self,
        generations: Iterable[Generation],
        leases: Iterable[int],
        unknown: tuple[Listener, ...],
    ) -> dict[int, tuple[Listener, ...]]:
        # Several generations have one lease where the newer took over the queue of one that
        # could not answer. There may be many leases: a few operations a generation, on all at once.
        found: dict[int, tuple[Listener, ...]] = {}
        for generation in generations:
            mine = dict.fromkeys(generation.leases, self.of(generation.spec))
            both = found.keys() & mine.keys()
            mine |= {n: tuple(dict.fromkeys((*found[n], *mine[n]))) for n in both}
            found |= mine
        return {lease: found.get(lease) or unknown for lease in leases}


class LeaseModes(msgspec.Struct, frozen=True):
    """Which leases are `passed` connections, and which `accept` for themselves.

    `foreign` are those that other services have, on listeners that are ours as well.
    `parting` leases get no new connections, but their workers still accept: only they hold the
    queues of a listener that the newer generation does not have.
    `meant` are the listeners of all that are passed connections, or will be.
    """

    passed: frozenset[int] = frozenset()
    accept: frozenset[int] = frozenset()
    foreign: frozenset[int] = frozenset()
    parting: Mapping[int, tuple[Listener, ...]] = msgspec.field(default_factory=dict)
    meant: frozenset[Address] = frozenset()


def lease_modes(fleet: FleetRecords, lease_map: LeaseMap) -> LeaseModes:
    """Return the modes of all leases that are in use."""
    generations = fleet.generations.values()
    passed = {n for g in generations if g.spec.accept is Accept.DISPATCH for n in g.leases}
    accept = {n for g in generations if g.spec.accept is not Accept.DISPATCH for n in g.leases}
    serving = fleet.serving
    if serving and serving.spec.accept is Accept.DISPATCH:
        passed |= dict(fleet.fed).keys() - accept  # of the dead, until there are others
    parting = lease_map.parting(fleet)
    passing = (each for each in specs(fleet) if each.accept is Accept.DISPATCH)
    meant = frozenset(at for each in passing for at in each.addresses)
    return LeaseModes(frozenset(passed), frozenset(accept), fleet.foreign, parting, meant)


def specs(fleet: FleetRecords) -> list[Spec]:
    """Return what all living generations run, and the next one will."""
    found = [generation.spec for generation in fleet.generations.values()]
    return [*found, fleet.pending.spec] if fleet.pending else found


def addresses(fleet: FleetRecords) -> frozenset[Address]:
    """Return the addresses that some living generation uses, or the next one will."""
    return frozenset([listen.address for spec in specs(fleet) for listen in spec.listen])


def takers(fleet: FleetRecords) -> list[Spec]:
    """Return the specs of those who take the connections that workers give away when they end.

    The newest generation takes them, or will when it has started; the one before only for as long
    as not all of its workers are told to stop.
    """
    if fleet.stopping:
        return []
    current, newest = fleet.current, fleet.trial or fleet.current
    still = current if current and any(True for _ in current.roster.active()) else None
    return [each.spec for each in (newest, still) if each]
