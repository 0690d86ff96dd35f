"""Read and write regular files only: opening or reading a FIFO or a device could block."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path


def read(path: Path, limit: int) -> bytes:
    """Return the content of a file; raise OSError, also if it is longer than `limit` bytes."""
    with open(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def write(path: Path, text: str, *, new: bool) -> None:
    """Write a file, in place of the one there; with `new` there must be none. Raise OSError."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if new else 0)
    with open(open_regular(path, flags), "w", encoding="utf-8") as file:
        file.truncate()
        file.write(text)


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Return a descriptor, which the caller owns; raise OSError if it is no regular file."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no regular file")


def first_bytes(path: str | os.PathLike[str], size: int) -> bytes:
    """Return the first `size` bytes of a file; raise OSError."""
    fd = open_regular(path)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def interpreter(path: str | os.PathLike[str]) -> list[str]:
    """Return the words of a script's `#!` line, [] for another file; raise OSError.

    As in the kernel, only blanks and tabs separate words: a carriage return is part of a word.
    """
    line = first_bytes(path, 256).partition(b"\n")[0]  # BINPRM_BUF_SIZE, linux/binfmts.h
    words = re.split(r"[ \t\0]+", os.fsdecode(line.removeprefix(b"#!")))
    return [word for word in words if word] if line.startswith(b"#!") else []
