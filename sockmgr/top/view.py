"""What `sockmgr top` shows at one instant, and what is chosen in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sockmgr.api.types import Event, ServiceStatus, Status, WorkerStatus
from sockmgr.metrics.usage import Usage, name_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Something that can be chosen: a service, or one of its workers (`web@8.1`)."""

    service: str
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One instant; `trouble` says why what is shown is old, `clock` is for the eye."""

    name: str
    status: Status
    manager: Usage = field(default_factory=Usage)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    events: Sequence[Event] = ()
    clock: str = ""
    trouble: str = ""
    chosen: Place | None = None
    said: str = ""
    question: str = ""


def in_order(service: ServiceStatus) -> list[WorkerStatus]:
    """Return the workers of a service, those of the newest generation first."""
    return sorted(service.workers, key=lambda worker: (-worker.generation, worker.slot))


def places(status: Status) -> list[Place]:
    """Return all that can be chosen, in the order in which it is shown."""
    found = []
    for name, service in status.services.items():
        found.append(Place(service=name))
        found += [Place(service=name, worker=name_of(name, worker)) for worker in in_order(service)]
    return found


def moved(status: Status, chosen: Place | None, steps: int) -> Place | None:
    """Return what is chosen so many places further; the first one if nothing was."""
    found = places(status)
    if not found:
        return None
    if chosen not in found:
        return found[0]
    return found[min(max(found.index(chosen) + steps, 0), len(found) - 1)]


def still_chosen(before: Status, now: Status, chosen: Place | None) -> Place | None:
    """Return what is chosen when `before` has become `now`: the same, or what took its place."""
    found, old = places(now), places(before)
    if chosen is None or not found:
        return None
    if chosen in found:
        return chosen
    index = old.index(chosen) if chosen in old else 0
    return found[min(index, len(found) - 1)]
