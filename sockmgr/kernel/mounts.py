"""See what is mounted, and of which type, and notice changes: /proc/self/mountinfo."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from pathlib import Path

# File systems that need no block device, though only this kernel writes to them.
_OF_THIS_KERNEL = frozenset({
    "aufs", "bcachefs", "btrfs", "devtmpfs", "ecryptfs", "overlay", "ramfs", "rootfs", "tmpfs",
    "zfs",
})  # fmt: skip


def table() -> dict[str, str]:
    """Return the type of each mount, such as "ext4", by its mount point; {} without /proc."""
    import psutil  # noqa: PLC0415 - it loads slowly, and only `sockmgr dev` asks

    try:
        # A later mount on the same point hides the earlier.
        return {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    except OSError:
        return {}


def file_system(path: str, points: Mapping[str, str]) -> str:
    """Return the type of the file system with `path`, from a `table`; "" if it is not known."""
    at = os.path.realpath(path)
    while at not in points and at != "/":
        at = os.path.dirname(at)  # noqa: PTH120
    return points.get(at, "")


def shared_types(types: set[str]) -> set[str]:
    """Return those of `types` of file systems to which others may write, unseen by this kernel.

    Only this kernel writes to a file system on a block device. One without a device comes from
    another machine or from a process (FUSE), but for a few types; /proc/filesystems marks it as
    "nodev" (proc_filesystems(5)). A type that is not listed there counts as without a device.
    """
    try:
        lines = Path("/proc/filesystems").read_text().splitlines()
    except OSError:
        lines = []
    on_devices = {line.strip() for line in lines if not line.startswith("nodev")}
    return types - on_devices - _OF_THIS_KERNEL - {""}


class Mounts:
    """A descriptor that is readable from the first mount or unmount on, until `read` is called."""

    def __init__(self) -> None:
        """Raise OSError if no descriptor is left."""
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        # The file is always readable; a change shows as EPOLLPRI: proc_pid_mounts(5).
        self._epoll.register(self._file, select.EPOLLPRI)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> None:
        """Take note of all changes until now."""
        self._epoll.poll(0)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._file)
