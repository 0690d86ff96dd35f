"""Tells when a worker that was ready hangs, by its heartbeat.

The manager looks when the worker would have been silent for `hang_timeout`, so a worker that beats
costs it one look in that time, and nothing in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sockmgr.kernel.heartbeat import Beat, HeartbeatMemory
from sockmgr.log import Log

log = Log("sockmgr")


class Watchdog:
    """Of one worker, called `name`. `hung` is called once, with the last beat and the silence.

    The `memory` is borrowed.
    """

    def __init__(
        self,
        name: str,
        limit: float,
        memory: HeartbeatMemory,
        loop: asyncio.AbstractEventLoop,
        hung: Callable[[Beat, float], None],
    ) -> None:
        self._name, self._limit, self._loop, self._hung = name, limit, loop, hung
        self._memory = memory
        self._timer: asyncio.TimerHandle | None = None
        self._suspected: Beat | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(self._limit, self._look)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        # A read of shared memory: a worker that hangs need not do anything for it.
        beat = self._memory.read()
        silent = self._loop.time() - beat.at
        if not beat.at:  # never, in all of hang_timeout: a program without the heartbeat
            log.warning(
                "worker has no heartbeat", worker=self._name,
                means="hang_timeout has no effect: it does not call sockmgr.worker.watchdog()",
            )  # fmt: skip
        elif silent < self._limit:
            self._suspected = None
            self._timer = self._loop.call_later(self._limit - silent, self._look)
        elif self._suspected != beat:
            # A machine that was frozen made it silent, and not the worker: let it beat once more.
            self._suspected = beat
            self._timer = self._loop.call_later(self._limit / 2, self._look)
        else:
            self._hung(beat, silent)
