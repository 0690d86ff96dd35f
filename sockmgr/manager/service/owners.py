"""Which service has the clients of each listener, where several have it, as in an exchange.

A service that is cut over takes them, and one that goes back takes back what it had. Owns that
record only; who else has a listener, the fleets tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from typing import Protocol

from sockmgr.config.spec import Address
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.records import FleetRecords
from sockmgr.manager.listeners.listener import Listener

_NOTHING: tuple[frozenset[int], frozenset[Address]] = frozenset(), frozenset()


class _Service(Protocol):
    @property
    def fleet(self) -> FleetRecords: ...
    @property
    def addresses(self) -> frozenset[Address]: ...
    def inherit(self, leases: Set[int], now: float, /) -> None: ...


class Owners:
    """The owners of all listeners; `services` are those of the manager, by name, as they are."""

    def __init__(self, services: Mapping[str, _Service]) -> None:
        self._services = services
        self._took: dict[Address, str] = {}
        self.takes = 0  # how often one took what another had taken
        self._told: dict[str, tuple[frozenset[int], frozenset[Address]]] = {}
        # Before the fact that is taken now: listeners whose clients it has, queues, other leases.
        self._had: dict[str, tuple[Set[Address], set[tuple[Address, int]], Set[int]]] = {}
        self._sharing = set[str]()  # those that got listeners on which others had leases
        # Queues of nobody, while who is to look after them has the number already, or boots.
        self.orphans = set[tuple[Address, int]]()

    def resume(self, service: str, leases: Mapping[int, Collection[Listener]]) -> None:
        """Know what a service was fed by a manager before us."""
        listeners = {each for mine in leases.values() for each in mine}
        fed = [each.listen.address for each in listeners if each.fed.keys() & leases.keys()]
        self._took |= dict.fromkeys(fed, service)
        self._note(service)
        if service in self._sharing:
            # Which queues were nobody's, no state tells.
            pooled = (each for each in listeners if each.is_steered)
            self.orphans.update((x.listen.address, n) for x in pooled for n in range(len(x.queues)))

    def take(self, service: str, generation: Generation | None) -> None:
        """Know that the clients of the listeners of this generation are for it from now on."""
        if generation and not self._services[service].fleet.stopping:
            addresses = generation.spec.addresses
            self.takes += any(self._took.get(each, service) != service for each in addresses)
            self._took |= dict.fromkeys(addresses, service)

    def tell(self, service: str) -> tuple[frozenset[int], frozenset[Address]]:
        """Return the leases that others have on its listeners, and those whose clients they have.

        The service knows that from now on: see outdated().
        """
        if self._are_shared:
            fleet = self._services[service].fleet
            known = fleet.unquiet.keys() | dict(fleet.fed).keys()
            self._had[service] = _claims(fleet).keys(), _served(fleet), known
        if any(told := self._beside(service)):
            self._told[service] = told
        else:
            self._told.pop(service, None)
        return told

    def follow(self, service: str) -> None:
        """Know what its fact has changed: others look after queues that it has no more.

        As where an exchange went back and the workers that had a listener meanwhile died: clients
        may wait where none of its own workers will ever take.
        """
        self._note(service)
        fleet = self._services[service].fleet
        if had := self._had.pop(service, None):
            claimed, served, known = had
            left, serving = claimed - _claims(fleet).keys(), _served(fleet)
            # Which of the leases that no generation has any more the dead had there, nobody knows.
            dead = known - {lease for _, lease in serving}
            lost = (served - serving) | {(at, n) for at in left for n in dead}
            self.orphans.update(x for x in lost if self._owner(x[0]) != service)
        if self.orphans:
            self._give_orphans(fleet.now)

    def _give_orphans(self, now: float) -> None:
        served = {each for one in self._services.values() for each in _served(one.fleet)}
        self.orphans -= served
        for address, lease in sorted(self.orphans, key=lambda each: (str(each[0]), each[1])):
            if owner := self._services.get(self._owner(address)):
                # For now the number may be that of another queue of its own, or of its listeners.
                namesakes = served & {(at, lease) for at in owner.addresses}
                is_met = _claims(owner.fleet).get(address)  # else it boots, and is to have them
                if namesakes or lease in owner.fleet.leases or not is_met:
                    continue
                owner.inherit({lease}, now)
            self.orphans.discard((address, lease))

    def outdated(self) -> list[str]:
        """Return the services about which something else is to be told by now."""
        if not self._are_shared and not self._told.keys() & self._services.keys():
            return []
        return [n for n in self._services if self._beside(n) != self._told.get(n, _NOTHING)]

    def replaced(self) -> set[str]:
        """Return the services that have a listener for good which another one has for good.

        A reload had removed them, and the manager died before that was over: no state tells.
        """
        every = self._services.items() if self._are_shared else ()
        settled = {name: _settled(each.fleet) for name, each in every}
        owned = ((name, self._owner(at), at) for name, mine in settled.items() for at in mine)
        return {name for name, owner, at in owned if owner != name and at in settled[owner]}

    def _beside(self, service: str) -> tuple[frozenset[int], frozenset[Address]]:
        if not self._are_shared:
            return _NOTHING
        addresses = self._services[service].addresses
        return self.leases_beside(service, addresses), self.elsewhere(service)

    def elsewhere(self, service: str) -> frozenset[Address]:
        """Return the listeners of a service whose clients are for others."""
        mine = self._services[service].addresses if self._are_shared else ()
        return frozenset(each for each in mine if self._owner(each) != service)

    def _owner(self, address: Address) -> str:
        """Return who has it, whoever asks: one of those that use it, "" if nobody does.

        The one with the best claim, of several the one that took it last. Those that only boot or
        help out there need an owner as well, or each would feed it against the others.
        """
        using = {n: _claims(s.fleet) for n, s in self._services.items() if address in s.addresses}
        took = self._took.get(address)
        return max(using, key=lambda n: (using[n].get(address, -1), n == took), default="")

    def leases_beside(self, service: str, addresses: Set[Address]) -> frozenset[int]:
        """Return the leases that other services have on these listeners."""
        return frozenset().union(*(each.fleet.leases for each in self._others(service, addresses)))

    def shares(self, service: str, address: Address) -> bool:
        """Return whether another service uses the listener as well."""
        return any(True for _ in self._others(service, {address}))

    def _others(self, service: str, addresses: Set[Address]) -> Iterator[_Service]:
        others = (each for name, each in self._services.items() if name != service)
        return (each for each in others if addresses & each.addresses)

    def _note(self, service: str) -> None:
        if self._services[service].fleet.is_beside_others:
            self._sharing.add(service)
        else:
            self._sharing.discard(service)

    @property
    def _are_shared(self) -> bool:
        return not self._sharing.isdisjoint(self._services)


def _claims(fleet: FleetRecords) -> dict[Address, bool]:
    """Return the listeners that a service may serve: by right, or only for want of better."""
    going = () if fleet.stopping else (fleet.trial, fleet.current)
    met = [each for each in going if each and each.may_be_met]
    return {at: each.is_met for each in met for at in each.spec.addresses}


def _settled(fleet: FleetRecords) -> frozenset[Address]:
    """Return the listeners of a service of which no reload is under way."""
    going = None if fleet.trial or fleet.pending or fleet.stopping else fleet.current
    return going.spec.addresses if going else frozenset()


def _served(fleet: FleetRecords) -> set[tuple[Address, int]]:
    """Return the queues that a service has, each by its listener and lease."""
    every = fleet.generations.values()
    return {(at, lease) for each in every for at in each.spec.addresses for lease in each.leases}
