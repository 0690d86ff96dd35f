"""A file that is there while the manager wants new traffic, for balancers that look at files.

Owns the file, which is empty: one that is not is somebody else's, and stays as it is. It outlives
a manager that is killed, as its workers do.
"""

from __future__ import annotations

import os
import stat

from sockmgr.log import Log

log = Log("sockmgr")


class ReadyFile:
    """The file of one manager; nothing is at any path until `show` is called."""

    def __init__(self) -> None:
        self._shown: tuple[str, bool] = ("", False)

    def show(self, path: str, *, ready: bool) -> None:
        """Have the file at `path` ("": nowhere) if `ready`, and only there."""
        before, self._shown = self._shown, (path, ready)
        if before == self._shown:
            return
        try:
            if before[0] != path:
                _remove(before[0])
            if ready:
                _make(path)
            else:
                _remove(path)
        except OSError as error:
            log.warning("ready_file cannot be kept", path=error.filename or path,
                        because=error.strerror,
                        means="who looks at it is told something wrong")  # fmt: skip


def _make(path: str) -> None:
    if path:
        # Not blocking: somebody may have made a FIFO there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o644))


def _remove(path: str) -> None:
    if not path:
        return
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        raise FileExistsError(None, "it is not an empty file", path)
    os.unlink(path)  # noqa: PTH108 - as all here, by its text
