"""Read regular files, and nothing else that a directory may hold: a FIFO would be waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read(path: Path, limit: int) -> bytes:
    """Return what is in a file; raises OSError, also if that is no regular one, or too long.

    A descriptor of our own (`/dev/stdin`, `<(command)` of a shell) is read whatever it is.
    """
    own = path.resolve().parts[:2] == ("/", "proc")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if own else os.O_NONBLOCK | os.O_NOCTTY))
    with open(fd, "rb") as file:  # noqa: PTH123 - it is open already
        if not own and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def open_regular(path: str | os.PathLike[str]) -> int:
    """Return a descriptor to read from, the caller's; raises OSError if it is no regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no regular file")


def first_bytes(path: str | os.PathLike[str], size: int) -> bytes:
    """Return the beginning of a regular file; raises OSError."""
    fd = open_regular(path)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)
