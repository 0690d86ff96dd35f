"""How often what happened, counted from the manager's own records as they are written. Pure.

A record that tells of a change is written where the change is made, once; so nothing else counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from sockmgr.api.records import subject
from sockmgr.api.types import Counts
from sockmgr.fleet.messages import State, describe_exit

RECYCLED = "recycled"  # how a worker ended that had served, and whom nobody told to
_LEFT = describe_exit(0)
_COUNTED = {
    "committed": "committed",
    "aborted": "aborted",
    "worker started": "started",
    "cannot start worker": "not_started",
    "worker hangs": "hung",
}


class Counters:
    """What was counted of each service, and the reloads that were `refused` before they began."""

    def __init__(self) -> None:
        self.refused = 0
        self._by_service: dict[str, Counts] = {}

    @property
    def kept(self) -> dict[str, Counts]:
        """What the next manager is to resume() with, beside `refused`."""
        return dict(self._by_service)

    def resume(self, before: Mapping[str, Counts], refused: int) -> None:
        """Go on where the manager before us was; what we counted ourselves comes on top."""
        own, self._by_service = self._by_service, dict(before)
        self.refused += refused
        for service, counts in own.items():
            for name in counts.__struct_fields__:
                self._add(service, name, getattr(counts, name))

    def of(self, service: str) -> Counts:
        """Return what was counted of a service; zeros if it is new."""
        return self._by_service.get(service, Counts())

    def take(self, told: Mapping[str, object]) -> None:
        """Count what a record tells: its constant `message` and its fields."""
        message, service = told["message"], subject(told)
        match message:
            case "reload refused":
                self.refused += 1
            case "stopped":  # it is gone, and one of the same name that comes later is another
                self._by_service.pop(service, None)
            case "worker ended":
                self._add(service, _end(told), 1)
            case "worker lost connections":
                self._add(service, "connections_lost", int(str(told.get("count", 0))))
            case str() if message in _COUNTED:
                self._add(service, _COUNTED[message], 1)
            case _:
                pass

    def _add(self, service: str, name: str, number: int) -> None:
        counts = self.of(service)
        self._by_service[service] = replace(counts, **{name: getattr(counts, name) + number})


def _end(told: Mapping[str, object]) -> str:
    """Return which end of a worker this is, of those that are told apart."""
    was, how = told.get("was"), told.get("how")
    if how == RECYCLED:
        return RECYCLED
    if not told.get("served"):
        return "unready"
    match was:
        case State.KILLED:
            return "killed"
        case State.DRAINING:
            return "drained" if how == "clean" else "unclean"
        case _:
            return "exited" if how == _LEFT else "crashed"
