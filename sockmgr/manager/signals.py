"""What signals ask of the manager: the same as control clients ask, but without an answer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from sockmgr.api.records import EventKind
from sockmgr.errors import SockmgrError
from sockmgr.log import Log
from sockmgr.manager.asker import ASKER

log = Log("sockmgr")

# Blocked until the manager can obey them: until then their default would end it, TTIN's and TTOU's
# would stop it.
ASKED_BY = (
    signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN,
    signal.SIGTTOU,
)  # fmt: skip
_REFUSED = {
    signal.SIGHUP: EventKind.RELOAD_REFUSED,
    signal.SIGUSR2: EventKind.UPGRADE_REFUSED,
    signal.SIGTTIN: EventKind.SCALE_REFUSED,
    signal.SIGTTOU: EventKind.SCALE_REFUSED,
}


class SignalHandler(Protocol):
    """What the manager does on each signal. Each method may raise SockmgrError."""

    stopping: bool

    async def reload_all(self) -> None:
        """Replace all workers by what the config says now."""

    async def scale_all(self, more: int) -> None:
        """Want this many more workers of each service."""

    async def upgrade(self) -> object:
        """Replace the manager's own code."""

    async def stop(self, now: bool) -> None:
        """Drain everything, or kill it `now`."""

    async def end(self) -> None:
        """Do what the service manager sent SIGTERM for."""


class Signals:
    """Turns each signal into a task; call `watch` when the manager is ready for them."""

    def __init__(self, asked: SignalHandler, tasks: asyncio.TaskGroup) -> None:
        self._asked, self._tasks = asked, tasks

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Obey ASKED_BY from now on; they were blocked so far, so none was lost or ended us."""
        asked = self._asked
        done: dict[signal.Signals, Callable[[], Coroutine[Any, Any, object]]] = {
            signal.SIGHUP: asked.reload_all,
            signal.SIGTERM: asked.end,
            # A second Ctrl-C means that somebody is tired of waiting for the drain.
            signal.SIGINT: lambda: asked.stop(now=asked.stopping),
            signal.SIGQUIT: lambda: asked.stop(now=True),
            signal.SIGUSR2: asked.upgrade,
            signal.SIGTTIN: lambda: asked.scale_all(+1),
            signal.SIGTTOU: lambda: asked.scale_all(-1),
        }
        for number, ask in done.items():
            loop.add_signal_handler(number, self._received, number, ask)
        loop.add_signal_handler(signal.SIGUSR1, log.info, "nothing to reopen: records go to stderr")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_BY)

    def _received(
        self, number: signal.Signals, ask: Callable[[], Coroutine[Any, Any, object]]
    ) -> None:
        log.info("signal", received=number.name)
        # Most requests wait for workers, and a handler must return at once: so each is a task.
        self._tasks.create_task(self._obey(number, ask()), name=number.name)

    async def _obey(self, number: signal.Signals, what: Coroutine[Any, Any, object]) -> None:
        ASKER.set(number.name)
        try:
            await what
        except SockmgrError as error:
            log.error(_REFUSED.get(number, "stop refused"), error=error)
