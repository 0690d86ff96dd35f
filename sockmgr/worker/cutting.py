"""Cuts off the requests that are not finished at the deadline of a drain."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from typing import Any

log = logging.getLogger("uvicorn.error")

Tasks = Collection["asyncio.Task[Any]"]


async def cut(tasks: Tasks, spread: float, limit: float) -> None:
    """Cancel `tasks` within `spread` seconds, and wait until they have ended, for `limit` at most.

    They are spread because the clients of streams reconnect at once. uvicorn would log an error
    with a traceback for each; instead one warning counts them.
    """
    loop = asyncio.get_running_loop()
    quiet = _Quiet()
    log.addFilter(quiet)
    for task in tasks:
        loop.call_later(random.uniform(0, spread), quiet.cut, task)  # noqa: S311 - no secret
    await asyncio.wait(tasks, timeout=limit)
    if count := len(quiet.done):  # else they ended by themselves, in their last instant
        verb = " was" if count == 1 else "s were"
        log.warning("%d request%s cut off at the deadline", count, verb)


class _Quiet(logging.Filter):
    """Drops records that are logged only because a task was cut, and not its own errors."""

    def __init__(self) -> None:
        super().__init__()
        self.done: set[asyncio.Task[Any]] = set()

    def cut(self, task: asyncio.Task[Any]) -> None:
        if task.cancel():
            self.done.add(task)

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # another thread, without a loop
            return True
        error = record.exc_info[0] if record.exc_info else None
        return task not in self.done or error not in (None, asyncio.CancelledError)
