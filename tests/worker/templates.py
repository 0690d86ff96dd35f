"""A template in the hands of a test: applications that it imports, and its answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sockmgr.kernel.process import Process
from sockmgr.kernel.spawn import Launch
from sockmgr.manager.logs.output import Output
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers.boot_priority import Boots
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.template import Begin, Request, Template
from tests.helpers.children import PATIENCE, wait_for_exit

APP = """
import os
async def app(scope, receive, send): pass
"""


class Nursery:
    """A directory for `main.py`, whose `app` is preloaded, and all workers that were made."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._directory, self._loop = directory, loop
        self._null = os.open(os.devnull, os.O_WRONLY)
        self.sink = Sink(self._null)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.template = Template(
            "web@1.template", loop, self._output, Boots(loop, can_lower=False), Family(),
            self._changed,
        )  # fmt: skip
        self.recorded = 0  # how often we could write down what there is
        self._results: asyncio.Queue[Process | int | str] = asyncio.Queue()
        self._processes: list[Process] = []

    def order(self, app: str = "main:app", *, begin: bool = True) -> Request:
        """Ask for a worker; one that shall not `begin` is made and not told to."""

        def launch() -> Launch:
            return Launch(
                argv=(sys.executable, "-u", "-P", "-m", "sockmgr.worker", "--fd", "3", app),
                executable=sys.executable,
                env={**os.environ, "NOTIFY_SOCKET": "/none"},
                cwd=str(self._directory),
                fds=[self.listener.fileno()],
                set_listen_pid=False,
                stdout=self._null,
                stderr=self._null,
            )

        def made(process: Process, let_it_begin: Begin) -> None:
            self._processes.append(process)
            if begin:
                let_it_begin()
            self._results.put_nowait(process)

        order = Request(launch=launch, made=made, failed=self._results.put_nowait)
        self.template.make(order, low=False, timeout=60.0)
        return order

    async def result(self) -> Process | int | str:
        """Wait for what comes of an order."""
        async with asyncio.timeout(PATIENCE):
            return await self._results.get()

    async def made(self) -> Process:
        """Wait for a worker."""
        found = await self.result()
        assert isinstance(found, Process), (found, self.words)
        return found

    async def refused(self) -> str:
        """Wait for a template that will not make any; return what it says."""
        assert await self.result() == 3, self.words
        return self.words

    @property
    def words(self) -> str:
        """What the template said last."""
        return "\n".join(self.template.last_words("").lines)

    async def ended(self) -> None:
        """Wait until the process of the template is gone."""
        async with asyncio.timeout(PATIENCE):
            while self.template.pid:  # noqa: ASYNC110 - it tells its owner by its requests only
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        self.template.close()
        await self.ended()
        for process in self._processes:
            process.signal_group(9)
            wait_for_exit(process)
            process.close()
        self.listener.close()
        os.close(self._null)

    def _output(self, name: str, found: tuple[int, ...]) -> Output:
        return Output(name, self.sink, self._loop, *found)

    def _changed(self) -> None:
        self.recorded += 1


@contextlib.asynccontextmanager
async def nursery(directory: Path, main: str = APP) -> AsyncIterator[Nursery]:
    """Put the application in place; nothing runs yet."""
    (directory / "main.py").write_text(main)
    found = Nursery(directory, asyncio.get_running_loop())
    try:
        yield found
    finally:
        await found.close()
