"""Which service has the clients of a listener that several have."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

from sockmgr.config.spec import Address, Spec
from sockmgr.fleet.fleet import Fleet
from sockmgr.manager.service import lease_map
from sockmgr.manager.service.owners import Owners
from tests.fleet.story import BROKEN, listening, make_spec
from tests.fleet.world import World

A, B = listening("a", "b")
AT_A = A.address


@dataclass
class Member:
    """A service of which only the fleet is there, in a world of its own."""

    world: World = field(default_factory=World)
    inherited: set[int] = field(default_factory=set)

    @property
    def fleet(self) -> Fleet:
        return self.world.fleet

    @property
    def addresses(self) -> frozenset[Address]:
        return lease_map.addresses(self.fleet)

    def inherit(self, leases: Set[int], now: float) -> None:
        self.inherited |= leases
        self.fleet.inherit(leases, now)


class Services:
    """web and api, by what befalls them."""

    def __init__(self) -> None:
        self.web, self.api = Member(), Member()
        self.by_name = {"web": self.web, "api": self.api}
        self.owners = Owners(self.by_name)

    def tell(self, name: str, happen: Callable[[World], object]) -> None:
        """Have something happen to a service, as the shell does."""
        world = self.by_name[name].world
        world.fleet.beside(*self.owners.tell(name))
        happen(world)
        self.owners.follow(name)

    def owners_at_a(self) -> list[str]:
        using = (n for n, each in self.by_name.items() if AT_A in each.addresses)
        return [name for name in using if AT_A not in self.owners.elsewhere(name)]


def got(services: Services, name: str) -> Spec:
    """Return a spec that gets the listener of the other service."""
    return make_spec("v2", listen=(A,), foreign=frozenset(services.by_name[name].fleet.leases))


def helped() -> Services:
    """Return services of which api was to serve at a, went back and helps; web is to get a."""
    services = Services()
    services.tell("api", lambda api: api.start(make_spec("v1", listen=(B,))))
    rolling = make_spec("v2", workers=2, start_concurrency=2, listen=(A,))
    services.tell("api", lambda api: api.reload(rolling))
    services.tell("api", lambda api: api.ready("2.1"))  # fed for want of better
    services.tell("api", lambda api: api.exit("2.2", status=BROKEN))
    services.tell("web", lambda web: web.reload(got(services, "api")))
    return services


def test_who_is_cut_over_has_the_listener_and_who_goes_back_leaves_it_again() -> None:
    services = Services()
    services.tell("web", lambda web: web.start(make_spec("v1", listen=(B,))))
    services.tell("api", lambda api: api.start(make_spec("v1", listen=(A,))))
    services.tell("web", lambda web: web.ready("1.1"))
    services.tell("api", lambda api: api.ready("1.1"))
    services.tell("web", lambda web: web.reload(got(services, "api")))
    assert services.owners_at_a() == ["api"]
    services.tell("web", lambda web: web.ready("2.1"))
    services.owners.take("web", services.web.fleet.trial)
    assert services.owners_at_a() == ["web"]
    services.tell("web", lambda web: web.exit("2.1", status=1))
    assert services.owners_at_a() == ["api"]


def test_who_was_to_be_removed_is_known_by_a_listener_that_another_service_has_for_good() -> None:
    services = Services()
    services.tell("web", lambda web: web.start(make_spec("v1", listen=(B,))))
    services.tell("api", lambda api: api.start(make_spec("v1", listen=(A,))))
    services.tell("web", lambda web: web.reload(got(services, "api")))
    services.tell("web", lambda web: web.ready("1.1", "2.1"))
    services.owners.take("web", services.web.fleet.trial)
    assert services.owners.replaced() == set()  # web may go back yet
    services.tell("web", lambda web: web.wait(1))
    assert services.owners.replaced() == {"api"}
    services.tell("api", lambda api: api.reload(make_spec("v2", listen=(B,))))
    assert services.owners.replaced() == set()


def test_a_listener_has_one_owner_though_clients_are_meant_for_none_of_those_that_use_it() -> None:
    services = helped()
    assert [each.fleet.serves for each in (services.api, services.web)] == [True, False]
    assert services.owners_at_a() == ["web"]


def test_a_queue_of_nobody_waits_for_its_owner_to_serve() -> None:
    services = helped()
    (lease,) = services.api.fleet.generations[2].leases
    services.tell("api", lambda api: api.exit("2.1"))
    assert services.owners.orphans == {(AT_A, lease)}
    assert not services.web.inherited  # it may go back yet, and nobody else would look after that
    services.tell("web", lambda web: web.ready("1.1"))
    assert services.web.inherited == {lease}
    assert not services.owners.orphans


def test_a_queue_of_nobody_is_forgotten_with_those_that_were_to_serve_there() -> None:
    services = helped()
    services.tell("api", lambda api: api.exit("2.1"))
    services.tell("web", lambda web: web.exit("1.1", status=BROKEN))
    assert not services.owners.orphans
