"""What signals ask of the manager: the same as control clients ask, but without an answer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

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


Ask = Callable[[], Coroutine[Any, Any, object]]


def obey(
    asked: Mapping[signal.Signals, Ask], loop: asyncio.AbstractEventLoop, tasks: asyncio.TaskGroup
) -> None:
    """Ask for this at each signal from now on; they were blocked so far, so none was lost.

    What is asked for may raise SockmgrError, which is logged.
    """

    def received(number: signal.Signals, ask: Ask) -> None:
        log.info("signal", received=number.name)
        # Most requests wait for workers, and a handler must return at once: so each is a task.
        tasks.create_task(_perform(number, ask), name=number.name)

    for number, ask in asked.items():
        loop.add_signal_handler(number, received, number, ask)
    loop.add_signal_handler(signal.SIGUSR1, log.info, "nothing to reopen: records go to stderr")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED_BY)


async def _perform(number: signal.Signals, ask: Ask) -> None:
    ASKER.set(number.name)
    try:
        await ask()
    except SockmgrError as error:
        log.error(_REFUSED.get(number, "stop refused"), error=error)
