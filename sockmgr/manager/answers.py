"""What a manager answers to who asks, beside reloads: by showing, and by changing what runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from sockmgr import __version__
from sockmgr.api import varlink
from sockmgr.api.types import JournalPlace, ManagerStatus, Plan, Status, Verdict
from sockmgr.api.varlink import PastGeneration
from sockmgr.errors import ControlError
from sockmgr.manager import decisions, scaling
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


class Answers:
    """The part of a manager that clients of the control socket ask (api.varlink.METHODS).

    `config_file` is the file that the config is read from, if any. `stopping`: it is to end.
    `_leaving` says why another manager is about to come; "" if none is.
    """

    config_file = ""
    stopping = False
    _leaving = ""
    _started: float
    _sink: Sink
    _history: EventLog
    _services: Services
    _listeners: Listeners
    _dispatcher: Dispatcher
    _handover: Handover
    _health: Health

    # --- What it shows ---------------------------------------------------------------------------

    async def counted_status(self, *, sizes: bool = True) -> Status:
        """Tell what runs, with the `sizes` of workers or without, when all have been counted."""
        await self._dispatcher.count()
        return await measured(self.status()) if sizes else self.status()

    def status(self) -> Status:
        """Return what runs, without sizes, and what connections there were at the last count."""
        self._handover.keep_now()
        configured, tally = self._services.configured(), self._history.tally
        about = ManagerStatus(
            pid=os.getpid(), version=__version__, started=self._started, refused=tally.refused,
            config=self.config_file, dispatcher=self._dispatcher.pid,
            stopping=self.stopping,
        )  # fmt: skip
        return status_of(about, configured, self._listeners, self.services, tally)

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
        return EventFollower(self._history, service, after, last)

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

    # --- What it changes -------------------------------------------------------------------------

    async def promote(self, service: str = "") -> Verdict:
        """Give the canary of a service ("": the only one) everything; return the verdict on it.

        Also when another manager is to come, which waits for the verdict, and in a stop that still
        serves: as long as there is a rollout, somebody may decide about it.
        """
        return await decisions.promote(self.services, service)

    async def abort(self, service: str = "", reason: str = "") -> Verdict:
        """Take back the rollout of a service ("": the only one) likewise; return its verdict."""
        return await decisions.abort(self.services, service, reason)

    async def scale(self, service: str, workers: int, relative: bool = False) -> int:
        """Want this many workers, or so many more; return how many are ready in the end."""
        self._refuse_if_stopping()
        found = self._services.find(service)
        # Of what is wanted now, not of what is ready: two that come at once must both count.
        wanted = found.wanted + workers if relative else workers
        await scaling.scale(found, wanted)
        return wanted

    async def restart_worker(self, worker: str) -> str:
        """Replace this worker (`web@7.2`); return the name of its successor when that is done."""
        self._refuse_if_stopping()
        service, place = scaling.place_of(worker)
        return await scaling.restart_worker(self._services.find(service), place)

    async def scale_all(self, more: int) -> None:
        """Want this many more workers of each service."""
        for service in self._services:
            await self.scale(service.name, more, relative=True)

    def _refuse_if_stopping(self) -> None:
        """Raise ControlError if all is to stop, or another manager comes: it would not know."""
        why = self._leaving or ("the manager is stopping" if self.stopping else "")
        if why:
            raise ControlError(why, means="nothing was changed")
