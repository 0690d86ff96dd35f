"""What the workers of one service have counted of their requests, by generation.

Reads the memory of those that run; keeps what those have counted that have ended. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from msgspec.structs import replace

from sockmgr.api.figures import Figures
from sockmgr.fleet.messages import WorkerId
from sockmgr.manager.workers.worker import WorkerProcess

GONE = 0  # in the place of the number of a generation: all those that are no more


class ServiceFigures:
    """The figures of the workers that are `running`, and of those that were."""

    def __init__(self, running: Mapping[WorkerId, WorkerProcess]) -> None:
        self._running = running
        self.ended: dict[int, Figures] = {}  # by generation, for the next manager

    @property
    def total(self) -> Figures:
        """What all have counted: it never falls."""
        running = (each.figures for each in self._running.values())
        return sum((*self.ended.values(), *running), Figures())

    def of(self, generation: int) -> Figures:
        """Return what the workers of a generation have counted."""
        running = (w.figures for id, w in self._running.items() if id.generation == generation)
        return sum(running, self.ended.get(generation, Figures()))

    def bury(self, worker: WorkerProcess) -> None:
        """Keep what a worker has counted that has ended."""
        # What it had in hand has ended with it, and waits for no answer any more.
        last = worker.figures
        self._add(worker.id.generation, replace(last, begun=last.answered))

    def keep(self, generations: Container[int]) -> None:
        """Add up what all generations have counted that are not among these."""
        for number in [n for n in self.ended if n != GONE and n not in generations]:
            self._add(GONE, self.ended.pop(number))

    def _add(self, generation: int, more: Figures) -> None:
        if more != Figures():
            self.ended[generation] = self.ended.get(generation, Figures()) + more
