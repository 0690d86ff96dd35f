"""A watched directory, and what is found to have changed in it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sockmgr.dev.rules import Rules
from sockmgr.dev.watch import Watcher
from sockmgr.errors import SockmgrError


class Watched:
    """A watched directory, and a file elsewhere by which we know that all before it was told."""

    def __init__(
        self, root: Path, complaints: list[SockmgrError], polling: bool | None = None
    ) -> None:
        self.root = root
        self.notices = 0
        self.woken = asyncio.Event()
        self.elsewhere = tempfile.TemporaryDirectory()
        self._mark = Path(self.elsewhere.name, "mark.py")
        self._mark.write_text("")
        rules = Rules(str(root), [str(root)], files=[str(self._mark)])
        self.watcher = Watcher(rules, self._count, complaints.append, polling)
        self.rewritten: set[str] = set()

    def _count(self) -> None:
        self.notices += 1
        self.woken.set()

    async def changed(self) -> set[str]:
        """What has another content since this was asked last."""
        self._mark.write_text(f"{self._mark.read_text()}.")
        found: set[str] = set()
        self.rewritten = set()
        while str(self._mark) not in found:
            await self.woken.wait()
            self.woken.clear()
            looked = await self.watcher.look()
            found |= looked.changed.keys()
            self.rewritten |= looked.rewritten.keys()
        return {os.path.relpath(path, self.root) for path in found - {str(self._mark)}}

    async def heard(self) -> set[str]:
        """Wait until something has changed: the mark may be heard before a new place is watched."""
        while not (found := await self.changed()):
            pass
        return found


@asynccontextmanager
async def watching(
    root: Path, complaints: list[SockmgrError], polling: bool | None = None
) -> AsyncIterator[Watched]:
    watched = Watched(root, complaints, polling)
    try:
        await watched.watcher.open(time.time() + 60)
        yield watched
    finally:
        watched.watcher.close()
        watched.elsewhere.cleanup()
