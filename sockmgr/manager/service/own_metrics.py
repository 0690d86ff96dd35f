"""The directory in which the workers of one service keep metrics of their own, and its upkeep.

Owns the directory, and the process that adds up what workers that have ended left there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from sockmgr.config.spec import Spec
from sockmgr.errors import SpawnError
from sockmgr.kernel.spawn import uid_of
from sockmgr.log import Log
from sockmgr.manager.workers.command import Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.programs import merge_metrics

log = Log("sockmgr")

TIMEOUT = 60.0
REMOVED_MAX = 4096  # files; each holds up the event loop a little


class OwnMetrics:
    """Those of one service; `close` them when its last worker has ended."""

    def __init__(self, name: str, context: WorkerContext, beside: Callable[[], Path]) -> None:
        """Make the directory `beside` this path, which raises SpawnError if it is gone."""
        self._name, self._context, self._beside = name, context, beside
        self._running: Command | None = None
        self._due: Spec | None = None

    def directory(self, spec: Spec) -> str:
        """Return the directory for a worker, "" if it is to have none; raise SpawnError."""
        if not spec.prometheus_multiproc:
            return ""
        path = self._path
        try:
            path.parent.mkdir(exist_ok=True)
            path.parent.chmod(0o755)  # whatever our umask is: workers of any user pass
            uid = uid_of(spec.user)
            if path.exists() and path.stat().st_uid != uid >= 0:
                self._discard(path)  # another user may have put links there
            path.mkdir(exist_ok=True)
            _give(path, uid)
        except OSError as error:
            raise SpawnError(f"cannot make {path}, for its metrics: {error.strerror}") from error
        return str(path)

    def merge(self, spec: Spec) -> None:
        """Add up what workers of this spec that have ended left: soon, if that is being done."""
        if not spec.prometheus_multiproc:
            return
        if self._running:
            self._due = spec
            return
        name = f"{self._name} metrics"
        with contextlib.suppress(SpawnError):  # the directory is gone, and all that was in it
            argv = (sys.executable, "-I", "-S", merge_metrics.__file__, str(self._path))
            # Its own directory may have been removed by now.
            bare = replace(spec, cwd="/", env=(), limits=())
            self._running = Command(name, self._context, self._merged)
            self._running.start(of_generation(bare, argv, sys.executable, {}), TIMEOUT)

    def close(self) -> None:
        """Remove what is there: nobody counts any more."""
        if self._running:
            self._running.close()
        with contextlib.suppress(SpawnError, OSError):
            self._discard(self._path)
            self._path.parent.rmdir()  # unless another service has one as well

    def _discard(self, path: Path) -> None:
        """Have nothing at the path any more, or raise OSError; tell of what cannot be removed.

        Workers may have put anything there. Links are not followed, nor directories entered.
        """
        aside = path.with_name(f".{path.name}.{path.stat().st_ino}")
        path.rename(aside)
        try:
            _give(aside, os.geteuid())  # as root we may not be allowed to write there
            aside.chmod(0o700)
            with os.scandir(aside) as entries:
                found = [Path(entry) for entry in islice(entries, REMOVED_MAX)]
            for each in found:
                with contextlib.suppress(OSError):  # it is a directory
                    each.unlink()
            aside.rmdir()
        except OSError as error:
            log.warning("metrics of workers not removed", service=self._name, path=str(aside),
                        why=error.strerror, means="it stays; remove it by hand")  # fmt: skip

    def _merged(self, result: Result) -> None:
        self._running = None
        if result.fault:
            log.warning("metrics of workers not merged", service=self._name, why=result.fault,
                        means="files of those that have ended stay, and count")  # fmt: skip
        if due := self._due:
            self._due = None
            self.merge(due)

    @property
    def _path(self) -> Path:
        return self._beside().with_suffix(".metrics") / self._name


def _give(path: Path, uid: int) -> None:
    """Make a user the owner of a directory."""
    if path.stat().st_uid != uid:  # a sandbox may forbid even a chown(2) that changes nothing
        os.chown(path, uid, -1)
