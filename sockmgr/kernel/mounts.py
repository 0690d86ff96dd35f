"""What is mounted, from /proc/self/mountinfo: of which type, and when that changes."""

from __future__ import annotations

import os
import re
import select
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` is on, such as "ext4"; "" if nobody says."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        real = path.resolve()
    except OSError:
        return ""
    found, depth = "", -1
    for line in lines:  # proc_pid_mountinfo(5); of two on one point the later is above
        mount, _, rest = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda code: chr(int(code[1], 8)), mount.split()[4]))
        if len(point.parts) >= depth and real.is_relative_to(point):
            found, depth = rest.split()[0], len(point.parts)
    return found


class Mounts:
    """For a loop to wait on: readable when something was mounted or unmounted, until `read`."""

    def __init__(self) -> None:
        """Raise OSError if there is no descriptor left."""
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        # It is always readable, and has EPOLLPRI as well after a change: proc_pid_mounts(5).
        self._epoll.register(self._file, select.EPOLLPRI)

    def fileno(self) -> int:
        """Return the descriptor, borrowed."""
        return self._epoll.fileno()

    def read(self) -> None:
        """Take note of what has changed until now."""
        self._epoll.poll(0)

    def close(self) -> None:
        """Close it."""
        self._epoll.close()
        os.close(self._file)
