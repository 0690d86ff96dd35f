"""What services mean to each other: who waits for whom at the start, in a rollout, and at the end.

Asks the fleets of all services, and tells each what the others have come to. Decides nothing:
fleet/together.py and fleet/order.py do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from sockmgr.api.records import EventKind
from sockmgr.config.company import apart
from sockmgr.config.spec import Address, Spec
from sockmgr.errors import ControlError
from sockmgr.fleet import order
from sockmgr.fleet.group import Together
from sockmgr.fleet.messages import Released
from sockmgr.fleet.records import FleetRecords
from sockmgr.fleet.together import Groups
from sockmgr.log import Log
from sockmgr.manager.service.service import Service

T = TypeVar("T")
log = Log("sockmgr")


class Company:
    """All services of a manager, by name, as they are now."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services, self._groups = services, Groups()
        self._coupled: set[str] = set()  # the services that wait for others, or may have to go back
        self.said: dict[str, int] = {}  # the last reload that said something about a service
        self._reloads, self._under_way = 0, set[int]()
        self._doomed = set[str]()

    # --- Reloads ---------------------------------------------------------------------------------

    def say(self, services: Iterable[str]) -> int:
        """Note that a reload says what these services are to be; return its number."""
        self._reloads += 1
        self._under_way.add(self._reloads)
        self.said |= dict.fromkeys(services, self._reloads)
        return self._reloads

    def conclude(self, number: int, removed: Collection[str], kept: Collection[str]) -> set[str]:
        """Return who is to go by now that a reload has `removed` some, and `kept` others.

        What a later one says counts, though that has no verdict yet; but not if it fails.
        """
        self._under_way.discard(number)
        self._doomed = self._doomed.union(removed).difference(kept)
        due = {each for each in self._doomed if self.said[each] not in self._under_way}
        self._doomed -= due
        return due

    # --- Rollouts and starts ---------------------------------------------------------------------

    def heed(self, name: str) -> None:
        """Tell who waits for this service, or it, what follows from its last fact, or its end."""
        service = self._services.get(name)
        if service and service.fleet.is_coupled:
            self._coupled.add(name)
        else:
            self._coupled.discard(name)
        # Most facts are about services that have nothing to do with others. A fact that somebody
        # has not taken yet may change what is decided; when it is taken, this is asked again.
        if not self._coupled or not all(each.is_at_rest for each in self._services.values()):
            return
        fleets = {each: service.fleet for each, service in self._services.items()}
        for each, decision in self._groups.decide(fleets):
            self._services[each].put(decision)
        for each in order.released(fleets):
            self._services[each].put(Released())

    def join(
        self, specs: Sequence[Spec], leaving: Collection[str], *, together: bool
    ) -> Mapping[str, Together]:
        """Return by name in which group each of these goes: all of them, if `together`.

        Services that get listeners from each other go together in any case: if only one of them
        changed, both would have the same one. Raises ControlError if one cannot. Those that are
        `leaving` give up their listeners.
        """
        joint = {spec.service for spec in specs} if together else self._exchanging(specs, leaving)
        for spec in specs:
            waits = self._is_to_go_together(spec.service)
            why = apart(spec.rollout, spec.workers) if spec.service in joint or waits else ""
            if why:
                raise ControlError(
                    f"{spec.service} cannot go together with others: it {why}",
                    means="nothing was changed",
                    do="wait for the verdicts on those that it is to go together with" if waits else
                    "reload it by itself, and the others together: sockmgr reload --together "
                    "SERVICE..." if together else "give the listener away in one reload, and take "
                    "it in the next one",
                )  # fmt: skip
        fleets = {name: service.fleet for name, service in self._services.items()}
        return dict.fromkeys(joint, Together(group=self._groups.number(fleets)))

    def _is_to_go_together(self, name: str) -> bool:
        """Whether a reload of this service is combined with one of several, which has not begun."""
        service = self._services.get(name)
        return service is not None and any(each.together for each in service.coming)

    def _exchanging(self, specs: Sequence[Spec], leaving: Collection[str]) -> set[str]:
        """Return which of these get listeners of each other; raise ControlError if of others."""
        asked = {spec.service: {each.address for each in spec.listen} for spec in specs}
        found: set[str] = set()
        for name, addresses in asked.items():
            for other, service in self._services.items():
                asked_for = {at for each in service.coming for at in each.spec.addresses}
                taken = addresses & (wanted(service.fleet) | asked_for)
                if other == name or not taken or other in leaving or service.fleet.stopping:
                    continue
                if other not in asked:
                    raise ControlError(
                        f"{name} is to get {min(map(str, taken))}, which {other} still serves",
                        means="nothing was changed",
                        do=f"reload both: sockmgr reload {name} {other}",
                    )
                found |= {name, other}
        return found

    @property
    def goes_together(self) -> bool:
        """Whether a group has not come to its end."""
        return any(not self._services[name].fleet.is_held for name in self._coupled)

    def patience(self, specs: Sequence[Spec]) -> Mapping[str, float]:
        """Return for how long each of these may wait for others; those that serve wait for none."""
        serving = {n: s.fleet.serving.spec for n, s in self._services.items() if s.fleet.serving}
        every = serving | {spec.service: spec for spec in specs}
        new = [spec.service for spec in specs if spec.service not in serving]
        return {name: order.patience(name, every) for name in new}

    # --- The end ---------------------------------------------------------------------------------

    async def end(
        self, services: Sequence[Service], stop: Callable[[Service], Awaitable[T]]
    ) -> list[T]:
        """Have `stop` end these services, each when those of them that are after it have ended."""
        specs = {s.name: s.fleet.serving.spec for s in services if s.fleet.serving}
        after = {name: spec.after for name, spec in specs.items()}
        ends: dict[str, asyncio.Task[T]] = {}

        async def end(service: Service) -> T:
            if first := order.followers(service.name, after):
                patience = order.stop_patience(service.name, specs)
                _, late = await asyncio.wait([ends[name] for name in first], timeout=patience)
                if late:  # processes that not even SIGKILL ends
                    log.warning(EventKind.WAITED_IN_VAIN, service=service.name, means="it stops")
            return await stop(service)

        for service in services:
            ends[service.name] = asyncio.create_task(end(service))
        return await asyncio.gather(*ends.values())


def wanted(fleet: FleetRecords) -> set[Address]:
    """Return the addresses at which a service serves, or is about to; not where it still drains."""
    specs = [each.spec for each in (fleet.current, fleet.trial, fleet.pending) if each]
    return {listen.address for spec in specs for listen in spec.listen}
