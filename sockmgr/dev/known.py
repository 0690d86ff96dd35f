"""What dev remembers of a service, and what it reads from the service's fleet. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from sockmgr.dev.failure import Failure
from sockmgr.dev.pages import STAND_IN
from sockmgr.fleet.generation import Generation
from sockmgr.manager.service.service import Service


@dataclass(slots=True)
class Known:
    """What has been seen of one service."""

    good: bool = False  # some code of it has served
    down: bool = False  # its first generation failed, and nothing else has served
    number: int = 0  # of the generation that serves
    failure: Failure | None = None
    failed: int = 0  # the generation that failed with `failure`
    took: dict[int, float] = field(default_factory=dict)  # until the cut-over, by generation


def serving(service: Service) -> int:
    """Return the number of a generation of code that can be reached, 0 if there is none."""
    generations = service.fleet.generations.values()
    return max((g.number for g in generations if g.ready and not _is_stand_in(g)), default=0)


def is_alone(service: Service, number: int) -> bool:
    """Tell whether no process of another generation is left."""
    return not any(g.workers for g in service.fleet.generations.values() if g.number != number)


def has_failed(service: Service) -> bool:
    """Tell whether the first generation failed, and nothing is being done about it."""
    fleet = service.fleet
    if fleet.current is None or fleet.trial or fleet.pending or fleet.stopping:
        return False
    return bool(fleet.current.failures and not fleet.current.ready)


def _is_stand_in(generation: Generation) -> bool:
    return STAND_IN in generation.spec.argv
