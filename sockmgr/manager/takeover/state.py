"""The state that one manager leaves to the next: where it is written, and under which names.

Descriptors go to a store that outlives the manager, each under a name. `http#3` is queue 3 of the
listener http (and `http#3'` the one that has just taken its place), `web@7.2/pidfd` the pidfd of a
worker and `web@7.2/output` the pipe that it writes to. What they belong to is written down in the
state, which is two descriptors more, `@state`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from sockmgr.fleet import snapshot
from sockmgr.kernel import private
from sockmgr.kernel.rights import close_all
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, is_at, reached

log = Log("sockmgr")

STATE = "@state"
LIFELINE = "@lifeline"  # whose end tells the guard that nobody can come back
RENEWED = "'"  # ends the name of a queue while another, whose place it took, has that name
NOTIFY = "@notify"  # what workers say READY=1 to, also while there is no manager
FOUND = object()  # what a name stands for that a predecessor left
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StateMemory:
    """The state in two memfds, written in turn, so that one is always whole."""

    def __init__(self, fds: Sequence[int], serial: int, copy: Path | None = None) -> None:
        """Own the memfds `fds` of a predecessor, or make two; `serial` is the newest in them.

        `copy` is a file that has the same content, for when nobody has kept the memfds.
        """
        self._copy = copy
        whole = len(fds) == 2
        self.fds = tuple(fds) if whole else (_memfd("state 1"), _memfd("state 2"))
        close_all(() if whole else fds)
        self._serial = serial
        self._is_behind = False  # the copy could not be written

    def write(self, state: bytes) -> None:
        """Write the state, which is JSON already, over the older of the two. Raises OSError."""
        # Counted when it is there: after a failure the next one goes over this one again, not over
        # the only one that is whole.
        serial = self._serial + 1
        data = snapshot.sealed(state, serial=serial)
        fd = self.fds[serial % 2]
        os.ftruncate(fd, 0)
        if is_at(Point.STATE_HALF_WRITTEN):
            private.write_all(fd, data[: len(data) // 2])
            reached(Point.STATE_HALF_WRITTEN)
        private.write_all(fd, data)
        self._serial = serial
        reached(Point.STATE_WRITTEN)
        if self._copy:
            self._write_copy(self._copy, data)
            reached(Point.STATE_COPIED)

    @property
    def latest(self) -> int:
        """The memfd that was written last, borrowed."""
        return self.fds[self._serial % 2]

    @property
    def is_copied(self) -> bool:
        """Whether the copy is where it should be, if there should be one."""
        return self._copy is None or self._copy.exists()

    def remove_copy(self) -> None:
        if self._copy:
            self._copy.unlink(missing_ok=True)

    def _write_copy(self, path: Path, data: bytes) -> None:
        # It holds the environment of the workers, so it is for our eyes only. Not fsync'ed: in
        # another boot of the machine it means nothing.
        try:
            private.write_file(path, data)
        except OSError as error:
            tell = log.debug if self._is_behind else log.warning
            tell("no copy of the state", path=path, error=error.strerror)
            self._is_behind = True
        else:
            self._is_behind = False

    def close(self) -> None:
        close_all(self.fds)


def _memfd(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


@functools.cache  # it never changes, and there may be no descriptor left to read it with
def boot_id() -> str:
    return _BOOT_ID.read_text().strip()
