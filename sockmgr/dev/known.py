"""What dev remembers of each service, and what it reads from the service's fleet.

Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sockmgr.dev.failure import Failure
from sockmgr.dev.pages import STAND_IN
from sockmgr.fleet.messages import State
from sockmgr.manager.service.service import Service


@dataclass(slots=True)
class Known:
    good: bool = False  # some code of the service has served
    down: bool = False  # its first generation failed, and no other has served
    number: int = 0  # the generation that serves
    failure: Failure | None = None
    failed: int = 0  # the generation that failed with `failure`
    took: dict[int, float] = field(default_factory=dict)  # generation -> seconds to the cut-over


def serving(service: Service) -> int:
    """Return the newest generation of the user's code with a ready worker, 0 if there is none."""
    generations = service.fleet.generations.values()
    theirs = (each for each in generations if STAND_IN not in each.spec.argv)
    return max((each.number for each in theirs if each.ready), default=0)


def is_alone(service: Service, number: int) -> bool:
    """Return whether no process of another generation is left."""
    return not any(g.workers for g in service.fleet.generations.values() if g.number != number)


def has_failed(service: Service) -> bool:
    """Return whether the first generation failed, and no rollout is to replace it.

    It has not before a worker that is killed has ended: only then is known what the worker said.
    """
    fleet = service.fleet
    if fleet.current is None or fleet.trial or fleet.pending or fleet.stopping:
        return False
    dying = any(worker.state is State.KILLED for worker in fleet.current.workers.values())
    return bool(fleet.current.failures and not fleet.current.ready and not dying)
