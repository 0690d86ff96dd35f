"""What is mounted, from /proc/self/mountinfo: of which type, and when that changes."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Mapping
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")
# They need no device, and still have all their writers in this kernel.
_OF_THIS_KERNEL = frozenset({
    "aufs", "bcachefs", "btrfs", "devtmpfs", "ecryptfs", "overlay", "ramfs", "rootfs", "tmpfs",
    "zfs",
})  # fmt: skip


def table() -> dict[str, str]:
    """Return the type of what is mounted, such as "ext4", by the mount point; {} if nobody says."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:  # proc_pid_mountinfo(5); of two on one point the later is above
        mount, _, rest = line.partition(" - ")
        point = _ESCAPE.sub(lambda code: chr(int(code[1], 8)), mount.split()[4])
        found[point] = rest.split()[0]
    return found


def file_system(path: str, points: Mapping[str, str]) -> str:
    """Return the type of the file system that `path` is on by a `table`; "" if nobody says."""
    at = os.path.realpath(path)
    while at not in points and at != "/":
        at = os.path.dirname(at)  # noqa: PTH120
    return points.get(at, "")


def shared_types(types: set[str]) -> set[str]:
    """Return those of some types of file systems that others may write to, unheard by this kernel.

    What is on a block device is written by this kernel only. What is not comes from another machine
    or from a process (FUSE), but for a few, and /proc/filesystems tells which is which
    (proc_filesystems(5)): "nodev". What it does not name is not known to be on a device.
    """
    try:
        lines = Path("/proc/filesystems").read_text().splitlines()
    except OSError:
        lines = []
    on_devices = {line.strip() for line in lines if not line.startswith("nodev")}
    return types - on_devices - _OF_THIS_KERNEL - {""}


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
