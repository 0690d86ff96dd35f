"""The records of a fleet as JSON, put together from pieces of which only the changed ones are new.

Encoding a worker takes ten times as long as copying what was encoded before. So a save costs
O(workers that have changed), and a copy of the bytes of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import WorkerId
from sockmgr.fleet.snapshot import (
    GenerationSnapshot,
    ProcessSnapshot,
    as_json,
    generation_record,
    service_record,
    worker_record,
)

Processes = Mapping[WorkerId, ProcessSnapshot]


@dataclass(slots=True)
class _Piece:
    """One generation: its spec, which never changes, and its workers by their arrival."""

    spec: msgspec.Raw
    workers: dict[int, msgspec.Raw] = field(default_factory=dict)


class Pieces:
    """What was encoded of one fleet so far."""

    def __init__(self) -> None:
        self._generations: dict[int, _Piece] = {}

    def record(
        self,
        name: str,
        fleet: Fleet,
        processes: Processes,
        changed: Iterable[WorkerId],
        past: bytes = b"",
        hook: ProcessSnapshot | None = None,
    ) -> msgspec.Raw:
        """Return the record of a fleet, as JSON; of `changed` the processes have changed."""
        # The fleet knows nothing of processes, so it cannot know that one of them has changed.
        for id in changed:
            if worker := fleet.find(id):
                fleet.generations[id.generation].roster.touched[worker.arrival] = worker
        for number in self._generations.keys() - fleet.generations.keys():
            del self._generations[number]
        generations = tuple(self._piece(g, processes) for g in fleet.generations.values())
        return as_json(service_record(name, fleet, generations, past, hook))

    def _piece(self, generation: Generation, processes: Processes) -> GenerationSnapshot:
        piece = self._generations.get(generation.number)
        if piece is None:
            piece = self._generations[generation.number] = _Piece(as_json(generation.spec))
        # In the order of arrival: what is new comes last, and what has changed keeps its place.
        touched, generation.roster.touched = generation.roster.touched, {}
        for arrival, worker in touched.items():
            if worker.roster is None:  # it has left, and its arrival is nobody else's
                piece.workers.pop(arrival, None)
            else:
                piece.workers[arrival] = as_json(worker_record(worker, processes.get(worker.id)))
        # JSON stands where the types promise a record: it is encoded as it is.
        pieces = cast("Any", (piece.spec, tuple(piece.workers.values())))
        return generation_record(generation, *pieces)
