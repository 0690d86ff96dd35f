"""Finds out what a release is called, as `release` in the config says: by a command, or a file.

A command is run as the workers of the generation are. A file must lie below its directory, wherever
links lead: the manager may read files that the user of the service may not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from sockmgr.api.records import printable
from sockmgr.config.spec import ReleaseName, Spec
from sockmgr.kernel import regular
from sockmgr.launch.executable import find
from sockmgr.manager.workers.command import Command, Result, of_generation
from sockmgr.manager.workers.context import WorkerContext

TIMEOUT = 5.0  # seconds that a command may take
LONGEST = 100  # characters
_READ_MAX = 1024  # bytes of a file

Done = Callable[[str, str], None]  # the name, or "" and why there is none


class Naming:
    """Looks for the name of one generation's release; `done` is called once, unless it is closed.

    For a file that is before begin() returns. The spec must have a `release`.
    """

    def __init__(self, title: str, spec: Spec, context: WorkerContext, done: Done) -> None:
        """`title` stands before what a command prints into the log."""
        self._spec, self._done = spec, done
        self._command = Command(title, context, self._ended)

    def begin(self) -> None:
        """Look for it."""
        source = self._spec.release or ReleaseName()
        if not source.argv:
            self._read(source.file)
            return
        # It is looked for now and not with the spec: without it there is no name, but a rollout.
        executable = find(source.argv[0], dict(self._spec.env), self._spec.cwd)
        if executable is None:
            self._done("", f"there is no program {source.argv[0]} that can be run")
            return
        start = of_generation(self._spec, source.argv, executable, {})
        self._command.start(start, TIMEOUT)

    def close(self) -> None:
        self._command.close()

    def _read(self, file: str) -> None:
        try:
            data = _first_bytes(Path(self._spec.cwd), file)
        except OSError as error:
            self._done("", f"{file}: {error.strerror}")
            return
        first, *_ = data.decode(errors="surrogateescape").strip().splitlines() or [""]
        self._tell(first, f"{file} is empty")

    def _ended(self, result: Result) -> None:
        # The last line: stderr is in the same pipe, and warnings come first.
        last = result.lines[-1] if result.lines else ""
        if result.fault:
            self._done("", ": ".join(filter(None, (result.fault, printable(last)))))
        else:
            self._tell(last, "it printed nothing")

    def _tell(self, text: str, otherwise: str) -> None:
        name = printable(text)[:LONGEST]
        self._done(name, "" if name else otherwise)


async def name_of(title: str, spec: Spec, context: WorkerContext) -> tuple[str, str]:
    """Return what the release in the directory of a spec is called now, or "" and why."""
    found: asyncio.Future[tuple[str, str]] = context.loop.create_future()
    naming = Naming(title, spec, context, lambda *told: found.set_result(told))
    try:
        naming.begin()
        return await found
    finally:
        naming.close()


def _first_bytes(directory: Path, file: str) -> bytes:
    fd = regular.open_regular(directory / file)
    try:
        # What was opened is asked for, as a link could be changed after it was looked at.
        if not Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(directory):
            raise OSError(0, f"it leads out of {directory}")
        return os.read(fd, _READ_MAX)
    finally:
        os.close(fd)
