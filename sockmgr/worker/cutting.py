"""The end of requests that are not done at the deadline of a drain."""

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

    Not all in one instant: the clients of streams come back at once. What uvicorn says of each, an
    error with a traceback, is said once for all, and is no error.
    """
    loop = asyncio.get_running_loop()
    quiet = _Quiet()
    log.addFilter(quiet)
    for task in tasks:
        loop.call_later(random.uniform(0, spread), quiet.cut, task)  # noqa: S311 - no secret
    await asyncio.wait(tasks, timeout=limit)
    count = len(quiet.done)
    log.warning("%d request%s cut off at the deadline", count, " was" if count == 1 else "s were")


class _Quiet(logging.Filter):
    """Drops what is logged only because a task was cut; its own errors are told."""

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
