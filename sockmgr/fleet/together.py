"""When the services of one reload go on together, or go back: decided for all fleets of a manager.

Nothing is kept here that must outlive the manager. Each generation knows its group, and how far it
was let, also when it has committed; so whoever looks at all fleets sees what was decided. If one of
a group has committed, all do; if one is neither on trial nor has committed, all go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto

from msgspec.structs import replace

from sockmgr.fleet.generation import Generation
from sockmgr.fleet.group import Gate, Together
from sockmgr.fleet.messages import GoBack, Let
from sockmgr.fleet.records import FleetRecords
from sockmgr.fleet.snapshot import GenerationSnapshot, ServiceSnapshot

Fleets = Mapping[str, FleetRecords]
Decision = tuple[str, Let | GoBack]  # for the service of this name


class _Standing(Enum):
    """What has become of one service of a group."""

    COMING = auto()  # it was let start, and has not yet
    TRIED = auto()
    COMMITTED = auto()
    BACK = auto()


class Groups:
    """The groups of all fleets; each fact that may concern one is followed by a decide()."""

    def __init__(self) -> None:
        self._begun = 0  # the highest number that was let start by us

    def number(self, fleets: Fleets) -> int:
        """Return the number of the group of a reload that comes now: of one that waits, or a new.

        As requests are combined into one rollout, so are groups that have not started: two that
        have a service in common would wait for each other.
        """
        pending = (fleet.pending.together for fleet in fleets.values() if fleet.pending)
        waiting = [each.group for each in pending if each and each.let is Gate.NONE]
        known = [g.together.group for f in fleets.values() for g in f.generations.values()
                 if g.together]  # fmt: skip
        return max([*waiting, max(known, default=0) + 1, self._begun + 1])

    def decide(self, fleets: Fleets) -> list[Decision]:
        """Return what each service is to be told now. None may have facts that it has not taken."""
        going = {fleet.trial.together.group: fleet.trial.together
                 for fleet in fleets.values() if fleet.trial and fleet.trial.together}  # fmt: skip
        decisions = list(self._starts(fleets))
        for together in going.values():
            decisions += _next_gate(together, fleets)
        return decisions

    def _starts(self, fleets: Fleets) -> Iterator[Decision]:
        waiting: dict[int, list[str]] = {}
        for name, fleet in fleets.items():
            together = fleet.pending.together if fleet.pending else None
            if together and together.let is Gate.NONE:
                waiting.setdefault(together.group, []).append(name)
        for group, names in waiting.items():
            # All or none: one that has begun would keep others from rollouts that they wait for.
            if not any(fleets[name].trial for name in names):
                self._begun = max(self._begun, group)
                start = Together(group=group, services=tuple(names), let=Gate.START)
                yield from ((name, Let(together=start)) for name in names)


def _next_gate(together: Together, fleets: Fleets) -> Iterator[Decision]:
    standings = {name: _standing(fleets.get(name), together.group) for name in together.services}
    tried = {name: fleets[name].trial for name, at in standings.items() if at is _Standing.TRIED}
    gone = next((name for name, at in standings.items() if at is _Standing.BACK), "")
    if _Standing.COMMITTED in standings.values():
        gate = Gate.COMMIT
    elif gone:
        yield from ((name, GoBack(group=together.group, failed=gone)) for name in tried)
        return
    else:
        gates = [trial.gate_at(fleets[name].now) for name, trial in tried.items() if trial]
        gate = min(gates) if len(gates) == len(standings) else Gate.NONE
    for name, trial in tried.items():
        if trial and not trial.may(gate):
            yield name, Let(together=replace(together, let=gate))


def _standing(fleet: FleetRecords | None, group: int) -> _Standing:
    def has(generation: Generation | None) -> bool:
        together = generation.together if generation else None
        return together is not None and together.group == group

    if fleet is None:
        return _Standing.BACK
    if has(fleet.trial):
        return _Standing.TRIED
    if has(fleet.current):
        return _Standing.COMMITTED
    coming = fleet.pending and fleet.pending.together
    return _Standing.COMING if coming and coming.group == group else _Standing.BACK


# --- The state of another manager ----------------------------------------------------------------


def resolved(services: Iterable[ServiceSnapshot]) -> list[ServiceSnapshot]:
    """Return the services as they are if what some were let by a manager that died, all were.

    It was let, by one decision, all or none of them, but may have died before all had taken it.
    """
    services = list(services)
    generations = {s.name: {g.number: g for g in s.generations} for s in services}
    committed = {_group(generations[s.name].get(s.current)) for s in services}
    begun = {t.group: t for s in services if (t := _together(generations[s.name].get(s.trial)))}
    return [_as_decided(service, committed, begun) for service in services]


def _as_decided(
    service: ServiceSnapshot, committed: set[int], begun: Mapping[int, Together]
) -> ServiceSnapshot:
    coming = service.pending_together
    if coming and coming.group in begun and service.name in begun[coming.group].services:
        start = replace(begun[coming.group], let=Gate.START)
        service = replace(service, pending_together=start)
    return replace(
        service,
        generations=tuple(
            replace(each, together=replace(each.together, let=Gate.COMMIT))
            if each.together and each.number == service.trial and each.together.group in committed
            else each
            for each in service.generations
        ),
    )


def _together(generation: GenerationSnapshot | None) -> Together | None:
    return generation.together if generation else None


def _group(generation: GenerationSnapshot | None) -> int:
    together = _together(generation)
    return together.group if together else 0
