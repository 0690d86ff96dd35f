"""What `sockmgr top` shows at one instant, and which service or worker is chosen. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sockmgr.api.types import Event, ServiceStatus, Status, WorkerStatus
from sockmgr.metrics.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A service, or one of its workers (`web@8.1`), that the user can choose."""

    service: str
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown at one instant.

    `clock` is the time of day; `said` is the last message, and `question` the one that waits for
    an answer. `trouble` says why the rest is out of date, "" if it is not.
    """

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
    """Return the workers of a service, the newest generation first, each by slot."""
    return sorted(service.workers, key=lambda worker: (-worker.generation, worker.slot))


def places(status: Status) -> list[Place]:
    """Return every place that can be chosen, in the order in which the places are shown."""
    found = []
    for name, service in status.services.items():
        found.append(Place(service=name))
        found += [Place(service=name, worker=worker.name(name)) for worker in in_order(service)]
    return found


def moved(status: Status, chosen: Place | None, steps: int) -> Place | None:
    """Return the place `steps` below `chosen`; the first place if none was chosen."""
    found = places(status)
    if chosen not in found:
        return found[0] if found else None
    return found[min(max(found.index(chosen) + steps, 0), len(found) - 1)]


def still_chosen(before: Status, now: Status, chosen: Place | None) -> Place | None:
    """Return what is chosen once the status is `now` instead of `before`.

    It is the same place, or the one that stands where the place stood if that is gone.
    """
    found, old = places(now), places(before)
    if chosen is None or not found:
        return None
    if chosen in found:
        return chosen
    index = old.index(chosen) if chosen in old else 0
    return found[min(index, len(found) - 1)]
