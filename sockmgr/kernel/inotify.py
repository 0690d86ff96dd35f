"""Watch directories for names that come and go, through inotify(7). Owns one instance.

It is for the manager's own paths. Files that a developer edits are watched by watchfiles, in dev/.
"""

from __future__ import annotations

import ctypes
import os
import struct

_HEADER = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len
_READ = 1 << 16
_ONLY_DIRECTORIES = 0x01000000


# What happened to a name in a directory, or to the directory itself (linux/inotify.h).
REMOVALS = 0x40 | 0x200 | 0x400 | 0x800  # IN_MOVED_FROM, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF
ARRIVALS = 0x80 | 0x100  # IN_MOVED_TO, IN_CREATE


class Inotify:
    """One inotify instance, for a loop to read when `fileno()` is readable."""

    def __init__(self) -> None:
        """Raise OSError: EMFILE when the user has too many instances (inotify_init(2))."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def add(self, directory: str, asked: int) -> int:
        """Watch one directory, without its subdirectories; return the number of the watch.

        Only the changes that are `asked` for become events. A directory that is watched already
        keeps its number. Raises OSError: ENOENT, ENOTDIR, EACCES, or ENOSPC if the user has too
        many watches (inotify_add_watch(2)).
        """
        mask = asked | _ONLY_DIRECTORIES
        name = ctypes.c_char_p(os.fsencode(directory))
        return self._call(self._libc.inotify_add_watch, self._fd, name, ctypes.c_uint32(mask))

    def remove(self, watch: int) -> None:
        """End a watch; the kernel may have ended it already, with its directory."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[str]:
        """Return the name of each event since the last call, "" for a directory itself.

        [] if there is none; at most what fits into 64 KiB, some thousand events.
        """
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return []
        names: list[str] = []
        at = 0
        while at < len(data):
            *_, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            names.append(os.fsdecode(data[at - length : at].rstrip(b"\0")))
        return names

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _call(self, function: ctypes._NamedFuncPointer, *arguments: object) -> int:
        result: int = function(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
