"""The paths by which a manager is found: their removal is noticed, and they are made again.

A logout, a cleaner of temporary files or a file system mounted over the directory takes them away.
Owns the watches on the directory; the owner of each path knows how to make it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from sockmgr.errors import SockmgrError
from sockmgr.kernel import private
from sockmgr.kernel.inotify import ARRIVALS, REMOVALS, Inotify
from sockmgr.kernel.mounts import Mounts
from sockmgr.log import Log

log = Log("sockmgr")

SETTLE_DELAY = 0.1  # seconds in which who removes one path removes the others and the directory

Mend = Callable[[], bool]  # does nothing and returns False if nothing is amiss; may raise


class OwnPaths:
    """Call `look` when it matters that the paths are there; `watch` calls it at each removal."""

    def __init__(
        self, directory: Path, mends: Mapping[str, Mend], lost: Callable[[], None]
    ) -> None:
        """`mends` make a path again each, and have its name as key.

        `lost` is called when messages of workers may have been lost meanwhile. Raises OSError.
        """
        self._directory, self._mends, self._lost = directory.absolute(), mends, lost
        self._mode = stat.S_IMODE(directory.stat().st_mode)
        self._known = private.flaw(directory)  # and told by who let us start there
        self._reported: list[str] = []
        self._watched = -1
        self._due: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Notice removals and mounts from now on, until `close`."""
        try:
            self._inotify, self._mounts = Inotify(), Mounts()
        except OSError as error:  # too many instances: then we look only when it matters
            log.warning("own paths not watched", directory=self._directory, error=error.strerror)
            return
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify, self._hear)
        self._loop.add_reader(self._mounts, self._hear)
        self._watch_anew()

    def close(self) -> None:
        """Notice and mend nothing any more."""
        self._mends = {}
        if self._due is not None:
            self._due.cancel()
        if self._loop is not None:
            for each in (self._inotify, self._mounts):
                self._loop.remove_reader(each)
                each.close()
            self._loop = None

    def look(self) -> None:
        """Mend what is amiss, and log once that it was, or why it cannot be mended."""
        mended, flaws = [], []
        if flaw := self._flaw():
            flaws.append(flaw)
        for name, mend in self._mends.items() if not flaw else ():
            try:
                mended += [name] if mend() else []
            except SockmgrError as error:
                flaws.append(error.what)
            except OSError as error:
                flaws.append(f"{name}: {(error.strerror or str(error)).lower()}")
        if mended:
            log.warning("paths were removed", directory=self._directory,
                        made_again=", ".join(mended))  # fmt: skip
        if flaws and flaws != self._reported:
            log.error("paths are gone", because="; ".join(flaws),
                      means="commands cannot reach the manager; what runs goes on",
                      tried_again="when the directory is there, and at each reload")  # fmt: skip
        self._reported = flaws  # what is known is not said again at each look
        if mended or flaws:
            self._lost()
        if self._loop is not None:
            self._watch_anew()

    def looked(self, answer: Callable[[], str]) -> Callable[[], str]:
        """Return a function that looks at the paths before it calls `answer`."""

        def ask() -> str:
            self.look()
            return answer()

        return ask

    def _flaw(self) -> str:
        """Make the directory if it is gone; return why it cannot be used, or nothing."""
        try:
            # The directory gets its former mode; one that others can write to would be a flaw.
            with contextlib.suppress(FileExistsError):
                self._directory.mkdir()
                self._directory.chmod(self._mode)
            flaw = private.flaw(self._directory)
        except OSError as error:
            return f"{self._directory}: {(error.strerror or '').lower()}"
        return "" if flaw == self._known else flaw

    def _hear(self) -> None:
        self._mounts.read()
        names = self._inotify.read()
        # Files of these names come and go with each change of the state, and each start.
        if names and all(name.endswith((".new", ".lock")) for name in names):
            return
        # Whoever removes one path removes others as well: one look comes after all of them.
        if self._due is None and self._loop is not None:
            self._due = self._loop.call_later(SETTLE_DELAY, self._settled)

    def _settled(self) -> None:
        self._due = None
        self.look()

    def _watch_anew(self) -> None:
        """Watch the directory that is there now; if there is none, the nearest one above it."""
        # A watch is on an inode (inotify(7)): a directory that was made again needs a new one.
        asked, there = REMOVALS, self._directory
        while True:
            try:
                watched = self._inotify.add(str(there), asked)
                break
            except OSError:
                if there == there.parent:
                    return
                asked, there = ARRIVALS | REMOVALS, there.parent
        if watched != self._watched:
            self._inotify.remove(self._watched)
            self._watched = watched
