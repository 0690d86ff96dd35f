"""The paths in its directory by which a manager is found: noticed when they are gone, and mended.

A logout, a cleaner of temporary files or a file system mounted over the directory takes them away.
Owns what hears of that; how a path is mended, its owner knows.
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
    """Call `look` when it matters that we can be reached; `watch` has it called by itself."""

    def __init__(
        self, directory: Path, mends: Mapping[str, Mend], lost: Callable[[], None]
    ) -> None:
        """`mends` are by the name of what each makes again.

        `lost` is called after what was said to us meanwhile may have been lost. Raises OSError.
        """
        self._directory, self._mends, self._lost = directory.absolute(), mends, lost
        self._mode = stat.S_IMODE(directory.stat().st_mode)
        self._known = private.flaw(directory)  # and told by who let us start there
        self._told: list[str] = []
        self._watched = -1
        self._due: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Hear of removals and mounts from now on, until `close`."""
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
        """Hear and mend nothing any more."""
        self._mends = {}
        if self._due is not None:
            self._due.cancel()
        if self._loop is not None:
            for each in (self._inotify, self._mounts):
                self._loop.remove_reader(each)
                each.close()
            self._loop = None

    def look(self) -> None:
        """Mend what is amiss, and tell once of that, or of why it cannot be."""
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
        if flaws and flaws != self._told:
            log.error("paths are gone", because="; ".join(flaws),
                      means="commands cannot reach the manager; what runs goes on",
                      tried_again="when the directory is there, and at each reload")  # fmt: skip
        self._told = flaws
        if mended or flaws:
            self._lost()
        if self._loop is not None:
            self._watch_anew()

    def looked(self, answer: Callable[[], str]) -> Callable[[], str]:
        """Return the same question, asked after a look."""

        def ask() -> str:
            self.look()
            return answer()

        return ask

    def _flaw(self) -> str:
        """Have the directory; say why it cannot be used, if so."""
        try:
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
        if self._due is None and self._loop is not None:
            self._due = self._loop.call_later(SETTLE_DELAY, self._settled)

    def _settled(self) -> None:
        self._due = None
        self.look()

    def _watch_anew(self) -> None:
        """Watch the directory that is there now; where there is none, the next one above it."""
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
