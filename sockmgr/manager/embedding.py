"""A companion that runs beside a manager, in its loop, and what it may ask of it: `sockmgr dev`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from sockmgr.api.types import Progress, Status, Verdict
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.service import Service


class Host(Protocol):
    """The manager, as its companion sees it."""

    stopping: bool

    def status(self) -> Status:
        """Return what runs, without the sizes of workers."""

    async def reload(
        self, services: tuple[str, ...], progress: Callable[[Progress], None]
    ) -> list[Verdict]:
        """Replace the workers of these services (none named: of all); return when it has ended."""

    async def stop(self, now: bool) -> None:
        """Drain everything, or kill it `now`; return when no worker is left."""

    @property
    def services(self) -> Mapping[str, Service]:
        """The services by name, for reading."""

    # A person who saves again does not want to wait for what they have just corrected.
    def give_up(self) -> None:
        """End every start that is under way beside a generation, so that its reload aborts."""


class Companion(Protocol):
    """A second source of the requests that clients make."""

    @property
    def sink(self) -> Sink:
        """Where the lines of workers and the manager's records go."""

    async def run(self, manager: Host) -> None:
        """Begin once every service has begun to start; be cancelled when no service is left."""

    def changed(self) -> None:
        """Take note that something about a service has changed."""
