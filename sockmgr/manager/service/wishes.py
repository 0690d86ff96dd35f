"""What others may ask of a service: a fact is put for it, and a future tells what comes of it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Set

from sockmgr.api.types import Verdict
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Fact, Reload, Stop, StopNow, Tick
from sockmgr.manager.service.conditions import Conditions
from sockmgr.manager.service.verdicts import Verdicts


class Facts(asyncio.Queue[Fact]):
    """The facts that a fleet has not been given yet; `put_nowait` adds one.

    They wait, since performing a command may make some (SpawnFailed): the fleet must not take one
    before every command about the last one has been performed.
    """

    def _init(self, maxsize: int) -> None:
        del maxsize  # there may be any number
        self.waiting = self._queue = deque[Fact]()

    async def next(self, deadline: float) -> Fact:
        """Return the next fact, or a Tick if there is none until `deadline` of the loop's clock."""
        if not self.empty():  # a fact that is handled late is a Tick as well
            return self.get_nowait()
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await self.get()
        except TimeoutError:
            return Tick()


class Wishes:
    """The part of a Service that only puts facts, and waits."""

    fleet: Fleet
    unsaved: bool
    _facts: Facts
    _conditions: Conditions
    _verdicts: Verdicts

    def join(self, trial: Generation) -> asyncio.Future[Verdict]:
        """Return a future that will hold the verdict about the generation that is on trial."""
        return self._verdicts.join(trial)

    def put(self, fact: Fact) -> None:
        """Have the fleet handle this fact soon."""
        self._facts.put_nowait(fact)

    def inherit(self, leases: Set[int], now: float) -> None:
        """Look after these queues of our listeners, which another service had."""
        # Not by a fact: a manager that is told of the one service must know of the other, too.
        self.fleet.inherit(leases, now)
        self.unsaved = True
        self.put(Tick())

    def until(self, met: Callable[[], bool]) -> asyncio.Future[None]:
        """Return a future that is done once `met()`, and fails if the service stops before."""
        return self._conditions.until(met)

    def serving(self) -> asyncio.Future[None]:
        """Return a future that is done once all wanted workers are ready."""
        return self.until(lambda: bool(self.fleet.current and self.fleet.current.full))

    def settled(self) -> asyncio.Future[None]:
        """Return a future that is done when no rollout is under way."""
        return self.until(lambda: self.fleet.trial is None and self.fleet.pending is None)

    def stop(self) -> asyncio.Future[None]:
        """Drain everything; the future is done when no worker is left."""
        self._facts.put_nowait(Stop())
        return self.until(lambda: self.fleet.stopped)

    def stop_now(self) -> asyncio.Future[None]:
        """Kill everything; the future is done when no worker is left."""
        self._facts.put_nowait(StopNow())
        return self.until(lambda: self.fleet.stopped)

    @property
    def is_at_rest(self) -> bool:
        """Whether its fleet has taken every fact that there is."""
        return self._facts.empty()

    @property
    def coming(self) -> list[Reload]:
        """The reloads that have not begun, also those of which its fleet has not heard yet."""
        waiting = [each for each in self._facts.waiting if isinstance(each, Reload)]
        return [self.fleet.pending, *waiting] if self.fleet.pending else waiting

    @property
    def wanted(self) -> int:
        return self.fleet.serving.wanted if self.fleet.serving else 0
