"""What a manager shows to who asks: its status, what a config would change, its log and events.

Changes nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from sockmgr import __version__
from sockmgr.api import varlink
from sockmgr.api.types import JournalPlace, ManagerStatus, Plan, Status
from sockmgr.api.varlink import PastGeneration
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.health import Health
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.events import EventFollower, EventLog
from sockmgr.manager.logs.ring import Follower
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.service import Service
from sockmgr.manager.services import Services
from sockmgr.manager.status import measured, status_of
from sockmgr.manager.takeover.handover import Handover


class Views:
    """What clients of the control socket ask without changing anything (api.varlink.METHODS).

    `config_file` is the file that the config is read from, if any. `stopping`: it is to end.
    """

    config_file = ""
    stopping = False
    _started: float
    _sink: Sink
    _history: EventLog
    _services: Services
    _listeners: Listeners
    _dispatcher: Dispatcher
    _handover: Handover
    _health: Health

    async def counted_status(self, *, sizes: bool = True) -> Status:
        """Tell what runs, with the `sizes` of workers or without, when all have been counted."""
        await self._dispatcher.count()
        status = self.status(sizes=False)
        return await measured(status) if sizes else status

    def status(self, *, sizes: bool = True) -> Status:
        """Return what runs, and what connections there were at the last count."""
        self._handover.keep_now()
        configured, tally = self._services.configured(), self._history.tally
        about = ManagerStatus(
            pid=os.getpid(), version=__version__, started=self._started, refused=tally.refused,
            config=self.config_file, dispatcher=self._dispatcher.pid,
            stopping=self.stopping,
        )  # fmt: skip
        return status_of(about, configured, self._listeners, self.services, tally, sizes=sizes)

    def health(self, service: str = "", ready: bool = False) -> varlink.Health:
        """Tell whether a service ("": each) serves; with `ready`, whether it wants new traffic."""
        if service:
            self._services.find(service)
        return self._health.answer(service, ready=ready)

    def plan(self, text: str | None = None, file: str = "config") -> Plan:
        """Return what the config `text` of `file` would change (None: what a reload would)."""
        return self._services.plan(text, file)

    def logs(self, service: str = "", lines: int = 100) -> Follower | JournalPlace:
        """Return the last lines about a service ("": all) and what comes, or where they are."""
        if service:
            self._services.find(service)
        return self._sink.place or Follower(self._sink.ring, service, lines)

    def events(
        self, service: str = "", after: int | None = None, last: int | None = None
    ) -> EventFollower:
        """Return the last events (None: all) about a service ("": all) and what comes."""
        if service:
            self._services.find(service)
        self._handover.keep_now()
        return self._history.follow(service, after, last)

    def history(self, service: str = "") -> tuple[PastGeneration, ...]:
        """Return what generations a service ("": each) has had, as far as is remembered."""
        # What a client was told of, the next manager must know as well.
        self._handover.keep_now()
        now = asyncio.get_running_loop().time()
        found = [self._services.find(service)] if service else self.services.values()
        return tuple(each for one in found for each in one.past.history.told(one.name, now))

    @property
    def services(self) -> Mapping[str, Service]:
        """The services by name, for reading."""
        return self._services.by_name
