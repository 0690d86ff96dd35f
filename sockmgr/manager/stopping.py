"""How a manager stops: it says so at once, serves on for a while, and only then drains everything.

Owns that wait, and knows whether it is the manager itself that gave up. What becomes of workers and
clients, each service's fleet decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.manager.asker import ASKER
from sockmgr.manager.health import Health
from sockmgr.manager.service.service import Service
from sockmgr.manager.services import Services

log = Log("sockmgr")


class Stopping:
    """The stop of one manager; with `waits` those who serve serve on for the delay of the config.

    `tell` is called once, when a stop begins.
    """

    def __init__(
        self, services: Services, health: Health, tell: Callable[[], None], *, waits: bool
    ) -> None:
        self.gave_up = False
        self._services, self._health = services, health
        self._tell, self._waits = tell, waits
        self._hurry = asyncio.Event()

    async def stop(self, *, now: bool) -> None:
        """Drain everything, or kill it `now`; return when no worker is left.

        Who asks a second time is tired of the delay: what is left of it is left out.
        """
        if self._health.is_stopping or now:
            self._health.drains_at = asyncio.get_running_loop().time()
            self._hurry.set()
        if not self._health.is_stopping:
            # Who serves nobody has nobody to wait for.
            waits = self._waits and self._health.serves_any and not now
            delay = self._services.config.stop_delay if waits else 0.0
            more = {"delay": delay} if delay else {}
            log.info(EventKind.STOPPING, now=now, by=ASKER.get(), **more)
            self._health.is_stopping = True
            self._health.drains_at = asyncio.get_running_loop().time() + delay
            self._tell()
        await self._outlast_delay()
        await self._services.stop(now=now)

    async def give_up(self) -> None:
        """Stop because what is to run does not serve; the manager then ends with exit code 1."""
        self.gave_up = True
        await self.stop(now=False)

    def attend(self, service: Service, tasks: asyncio.TaskGroup) -> None:
        """Give up when this service has been down for as long as its config allows."""

        def lost(found: asyncio.Future[None]) -> None:
            ended = found.cancelled() or found.exception()  # before that came
            if not (ended or self._health.is_stopping):
                log.error(EventKind.DOWN_FOR_TOO_LONG, service=service.name,
                          seconds=round(service.fleet.down_for, 1),
                          means="the manager ends, with exit code 1")  # fmt: skip
                tasks.create_task(self.give_up(), name=f"{service.name} is down")

        service.until(lambda: service.fleet.is_lost).add_done_callback(lost)

    async def _outlast_delay(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._health.drains_at):
                await self._hurry.wait()
