"""Counts what happened, from the manager's own records as they are written. Pure.

Each change is logged once, where it is made; so nothing else needs to count.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from sockmgr.api.records import EventKind, subject
from sockmgr.api.types import Counts
from sockmgr.fleet.endings import Ending
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import State
from sockmgr.log import Occurrence

_COUNTED: Mapping[str, str] = {
    EventKind.COMMITTED: "committed",
    EventKind.ABORTED: "aborted",
    EventKind.WORKER_STARTED: "started",
    EventKind.CANNOT_START_WORKER: "not_started",
    EventKind.WORKER_HANGS: "hung",
}


class Counters:
    """The counts of each service, and how many reloads were `refused` before they began."""

    def __init__(self) -> None:
        self.refused = 0
        self._by_service: dict[str, Counts] = {}

    @property
    def kept(self) -> dict[str, Counts]:
        """The counts by service that the next manager has to resume()."""
        return dict(self._by_service)

    def resume(self, before: Mapping[str, Counts], refused: int) -> None:
        """Add the counts of the manager before us to those that we have already."""
        # We have counted from zero since we started, before the state was read.
        own, self._by_service = self._by_service, dict(before)
        self.refused += refused
        for service, counts in own.items():
            for name in counts.__struct_fields__:
                self._add(service, name, getattr(counts, name))

    def of(self, service: str) -> Counts:
        """Return the counts of a service, which are zeros if it is new."""
        return self._by_service.get(service, Counts())

    def take(self, happened: Occurrence) -> None:
        """Count an occurrence, if its kind is one of those that are counted."""
        # By the kind and the fields only, since sentences are for people and may change.
        service = subject(happened.fields)
        match happened:
            case Occurrence(EventKind.RELOAD_REFUSED):
                self.refused += 1
            case Occurrence(EventKind.STOPPED):  # a later service of the same name starts anew
                self._by_service.pop(service, None)
            case Occurrence(
                EventKind.WORKER_ENDED, {"was": State() as was, "how": Ending() as how, **more}
            ):
                self._add(service, _end(was, how, served=bool(more["served"])), 1)
            # One record for all connections that one worker lost, so it counts for several.
            case Occurrence(EventKind.WORKER_LOST_CONNECTIONS, {"count": int(count)}):
                self._add(service, "connections_lost", count)
            case Occurrence(EventKind.WORKER_RECYCLED, {"limit": Limit() as limit}):
                self._add(service, limit, 1)
            case Occurrence(kind) if kind in _COUNTED:
                self._add(service, _COUNTED[kind], 1)
            case _:
                pass

    def _add(self, service: str, name: str, number: int) -> None:
        # Counts are immutable, since the saved state shares them.
        counts = self.of(service)
        self._by_service[service] = replace(counts, **{name: getattr(counts, name) + number})


def _end(was: State, how: Ending, *, served: bool) -> str:
    """Return the name under which the end of a worker is counted."""
    # A worker that was recycled, or that never served, may have been in any state.
    if how.recycled:
        return "recycled"
    if not served:
        return "unready"
    match was:
        case State.KILLED:
            return "killed"
        case State.DRAINING:
            return "drained" if how.clean else "unclean"
        case _:
            return "exited" if how.status == 0 else "crashed"
