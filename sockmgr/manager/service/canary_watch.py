"""A canary, watched: its check is run, and its answers are compared with those beside it.

Who waits for the verdict hears how it goes.
Owns the process of the check. Decides nothing: what is found is put as a fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import socket
from collections.abc import Callable, Iterator

from sockmgr.api.figures import Comparison, Finding
from sockmgr.api.types import CanaryStatus
from sockmgr.config.spec import Accept
from sockmgr.errors import ListenError
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import CheckPassed, Fact, TakeBack
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.service.lease_map import LeaseMap
from sockmgr.manager.service.processes import Processes
from sockmgr.manager.workers.asking import door
from sockmgr.manager.workers.command import Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext

PACE = 1.0  # seconds between two looks


class CanaryWatch:
    """Watches the generation on trial for as long as it is a canary."""

    def __init__(
        self,
        service: str,
        context: WorkerContext,
        processes: Processes,
        lease_map: LeaseMap,
        put: Callable[[Fact], None],
        report: Callable[[Generation, str], None],
    ) -> None:
        """`put` takes facts, `report` what is told to those who wait for the verdict."""
        self._service, self._context, self._put, self._report = service, context, put, report
        self._comparing = processes.comparing
        self._dispatching, self._lease_map = processes.dispatching, lease_map
        self._step: tuple[int, int] | None = None  # the generation and its step that are watched
        self._held = contextlib.ExitStack()  # the check, and its way to the new workers
        self._timer: asyncio.TimerHandle | None = None

    def keep_up(self, trial: Generation | None, current: Generation | None) -> None:
        """Know how it is after a fact: another step, say, or no canary any more."""
        step = (trial.number, trial.step) if trial and trial.share and trial.canary else None
        # By the step and not by what the fleet said: a manager that follows another was told
        # nothing, and has to go on all the same.
        if step == self._step:
            return
        self.close()
        self._step = step
        if trial and step:
            self._comparing.begin(trial, current)
            self._run_check(trial)
            self._look(trial)

    def close(self) -> None:
        """Watch nothing, and end a check that runs."""
        if self._step:  # else a predecessor may have begun to compare, and we go on with that
            self._comparing.end(self._context.loop.time())
        self._step = None
        if self._timer:
            self._timer.cancel()
        self._timer = None
        self._held.close()

    def _look(self, trial: Generation) -> None:
        loop = self._context.loop
        found = self._comparing.look(loop.time())
        if found and found.finding is Finding.WORSE:
            self._put(TakeBack(generation=trial.number, why=f"{found.why}: {found}"))
        held = trial.deadline == math.inf
        hint = f": `sockmgr promote {self._service}` or `sockmgr abort` decides" if held else ""
        if now := canary_status(trial, loop.time(), found):
            self._report(trial, f"{now}{now.numbers}{hint}")
        self._timer = loop.call_later(PACE, self._look, trial)

    def _run_check(self, trial: Generation) -> None:
        canary = trial.canary
        if canary is None or not canary.check or trial.checked:
            return
        name = f"{self._service}@{trial.number} check"
        done = functools.partial(self._checked, trial.number, trial.step)
        # Its process is no worker: a manager that follows ours knows nothing of it, ends it as a
        # stray, and runs the check again.
        check = Command(name, self._context, done)
        self._held.callback(check.close)
        variables = {
            "SOCKMGR_SERVICE": self._service,
            "SOCKMGR_GENERATION": str(trial.number),
            "SOCKMGR_STEP": str(trial.step + 1),
            "SOCKMGR_SHARE": str(trial.share),
        }
        reach = functools.partial(self._reach, trial, itertools.count())
        if way := door(trial.spec, self._lease_map.of(trial.spec), reach):
            self._held.callback(way.close)
            variables["SOCKMGR_PROBE_URL"] = way.url
        start = of_generation(trial.spec, canary.check, canary.executable, variables)
        check.start(start, canary.seconds)

    async def _reach(
        self, trial: Generation, turns: Iterator[int], listener: Listener
    ) -> socket.socket:
        """Return a connection to a worker of the canary that serves; they take turns."""
        if not (leases := sorted(trial.served)):
            raise ListenError("no worker of it is ready")
        lease = leases[next(turns) % len(leases)]
        if trial.spec.accept is Accept.DISPATCH:
            return await self._dispatching.reach(lease, listener)
        return await listener.reach(lease)

    def _checked(self, generation: int, step: int, result: Result) -> None:
        self._held.close()
        if not result.fault:
            self._put(CheckPassed(generation=generation, step=step))
            return
        why = ": ".join(["its check did not pass", result.fault, *result.lines[-1:]])
        self._put(TakeBack(generation=generation, why=why))


def canary_status(trial: Generation, now: float, found: Comparison | None) -> CanaryStatus | None:
    """Return how far a canary is, and how it compares; None if this generation is none."""
    canary = trial.spec.rollout.canary
    if canary is None or not trial.share:
        return None
    # One that has passed all steps is still in its last one, until its other workers are ready.
    steps = len(canary.shares)
    return CanaryStatus(
        share=trial.share,
        step=min(trial.step + 1, steps),
        steps=steps,
        since=round(now - trial.since, 3),
        left=None if trial.deadline == math.inf else round(max(0.0, trial.deadline - now), 3),
        passed=trial.canary is None,
        compared=found,
    )
