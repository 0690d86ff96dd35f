"""Hear of changes in directories, through inotify(7). Owns one instance; decides nothing.

Nothing is polled: the descriptor becomes readable within microseconds of a change. (The library
watchfiles looks at its own queue 20 times a second, all the while.)
"""

from __future__ import annotations

import ctypes
import os
import struct
from enum import IntFlag
from typing import NamedTuple

_HEADER = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len
_READ = 1 << 16


class Change(IntFlag):
    """What befell a name in a directory, or the directory itself (linux/inotify.h)."""

    MODIFY = 0x2
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    OVERFLOW = 0x4000  # events were lost
    IGNORED = 0x8000  # the watch is gone, with its directory or by `remove`
    IS_DIRECTORY = 0x40000000


_ASKED = (
    Change.MODIFY | Change.CLOSE_WRITE | Change.MOVED_FROM | Change.MOVED_TO | Change.CREATE
    | Change.DELETE | Change.DELETE_SELF | Change.MOVE_SELF
)  # fmt: skip
REMOVALS = Change.MOVED_FROM | Change.DELETE | Change.DELETE_SELF | Change.MOVE_SELF
_ONLY_DIRECTORIES = 0x01000000
_EXCLUDE_UNLINKED = 0x04000000


class Event(NamedTuple):
    """One event: `watch` is what `add` returned, `name` is "" for the directory itself."""

    watch: int
    change: Change
    name: str


class Inotify:
    """One inotify instance, for a loop to read when `fileno()` is readable."""

    def __init__(self) -> None:
        """Raise OSError: EMFILE when the user has too many instances (inotify_init(2))."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor, borrowed."""
        return self._fd

    def add(self, directory: str, asked: Change = _ASKED) -> int:
        """Watch one directory, not what is below; return its number, the same if it has one.

        What is not `asked` for wakes nobody.

        Raises OSError: ENOENT, ENOTDIR, EACCES, or ENOSPC at the limit of watches of the user
        (inotify_add_watch(2)).
        """
        mask = asked | _ONLY_DIRECTORIES | _EXCLUDE_UNLINKED
        name = ctypes.c_char_p(os.fsencode(directory))
        return self._call(self._libc.inotify_add_watch, self._fd, name, ctypes.c_uint32(mask))

    def remove(self, watch: int) -> None:
        """Watch no more; no harm if it is gone already."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> list[Event]:
        """Return what happened since, at most some thousand events; [] if nothing did."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
            events.append(Event(watch, Change(mask), name))
        return events

    def close(self) -> None:
        """Close it, and with it all watches."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _call(self, function: ctypes._NamedFuncPointer, *arguments: object) -> int:
        result: int = function(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
