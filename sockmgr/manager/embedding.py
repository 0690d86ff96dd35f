"""What may run beside a manager, in its loop, and what it may ask of it: `sockmgr dev` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sockmgr.manager.control.server import Handler
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.service import Service


class Host(Handler, Protocol):
    """The manager, as its companion sees it."""

    stopping: bool

    @property
    def services(self) -> Mapping[str, Service]:
        """The services by name, for reading."""

    def give_up(self) -> None:
        """End every start that is under way beside a generation, so that its reload aborts."""


class Companion(Protocol):
    """A second source of the requests that clients make."""

    @property
    def sink(self) -> Sink:
        """Where the lines of workers and the manager's records go."""

    async def run(self, manager: Host) -> None:
        """Begin once every service has been told to start; be cancelled when none is left."""

    def changed(self) -> None:
        """Hear that something about a service has changed."""
