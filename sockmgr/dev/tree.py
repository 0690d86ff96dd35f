"""Remembers the content of the watched files, and the directories to listen to for their changes.

Reads files, so it is called in a thread, one call at a time. Does not decide when to look.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sockmgr.dev.rules import MARKS, Rules
from sockmgr.kernel import mounts

LARGE = 4 << 20  # bytes; the content of a larger file is known by its size and time stamp only
CLOCK = 0.01  # seconds by which the time stamps of files are behind time.time()
_UNKNOWN = (0, 0, 0)
_LINKS_MAX = 40  # as many as the kernel follows: path_resolution(7)

Inode = tuple[int, int]


@dataclass(slots=True)
class Looked:
    """The files that have other content than before, and those rewritten with the same content."""

    changed: dict[str, None] = field(default_factory=dict)
    rewritten: dict[str, None] = field(default_factory=dict)


class _Content(NamedTuple):
    signature: tuple[int, int, int]
    digest: bytes
    settled: bool = False  # it is old enough that another write would get another time stamp


class Tree:
    """The files that count under some rules, and the paths to listen to for their changes.

    `wanted` has the directories, and the files that are mount points, by path, each with the device
    and the number of its inode. `leads` are further paths on which it depends what a file or a root
    is: the links on the way to it, and their targets.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.wanted: dict[str, Inode] = {}
        self.leads: set[str] = set()
        self._files: dict[str, dict[str, _Content]] = {}  # directory -> name -> content

    def begin(self, since: float) -> Looked:
        """Read everything; return the files that were written `since` (time.time()) as changed."""
        looked = self.look_everywhere()
        looked.changed = {path: None for path in looked.changed if _written_since(path, since)}
        return looked

    def learn(self, rules: Rules, since: float) -> Looked:
        """Use these rules from now on, which are the old ones with more `files`.

        Returns those of the new files as changed that were written `since` (time.time()).
        """
        new, self.rules = rules.files - self.rules.files, rules
        looked = Looked()
        for path in new:
            self._follow(path, self.wanted, self.leads)
            self._compare(path, looked)
        looked.changed = {path: None for path in looked.changed if _written_since(path, since)}
        return looked

    def look(self, paths: Collection[str]) -> Looked:
        """Compare these paths only; compare everything if one of them is more than a plain file."""
        looked = Looked()
        for path in paths:
            is_link = os.path.islink(path)  # noqa: PTH114 - text in, text out
            if is_link or path in self.leads or not self.rules.counts(path):
                return self.look_everywhere()
        for path in paths:
            self._compare(path, looked)
        return looked

    def look_everywhere(self) -> Looked:
        """Compare everything, and find out anew which paths to listen to."""
        looked = Looked()
        wanted: dict[str, Inode] = {}
        leads: set[str] = set()
        seen = {p: None for root in self.rules.roots for p in self._walk(root, wanted, leads)}
        for path in self.rules.files:
            self._follow(path, wanted, leads)
            seen[path] = None
        for path in seen:
            self._compare(path, looked)
        for directory, known in list(self._files.items()):
            for name in [n for n in known if f"{directory}/{n}" not in seen]:
                del known[name]
                looked.changed[f"{directory}/{name}"] = None
            if not known:
                del self._files[directory]
        self._want_mounted(wanted)
        self.wanted, self.leads = wanted, leads
        return looked

    # Private

    def _walk(self, root: str, wanted: dict[str, Inode], leads: set[str]) -> Iterator[str]:
        """Yield the files below `root` that count; add the paths to listen to."""
        self._follow(root, wanted, leads)
        waiting = [root]
        while waiting:
            directory = waiting.pop()
            _want(directory or "/", wanted)
            try:
                with os.scandir(directory or "/") as entries:
                    found = list(entries)
            except OSError:  # it is gone again, or we may not read it
                continue
            if directory != root and MARKS & {entry.name for entry in found}:
                continue
            for entry in found:
                path = f"{directory}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting += [path] if self.rules.enters(path) else []
                elif self.rules.counts(path):
                    if entry.is_symlink():
                        self._follow(path, wanted, leads)
                    yield path

    def _follow(self, path: str, wanted: dict[str, Inode], leads: set[str]) -> None:
        """Add the links on the way to a file or a root, since each decides what the path means."""
        for way in ways(path):
            _want(way.rpartition("/")[0] or "/", wanted)
            if way != path or path in self.rules.roots:
                leads.add(way)

    def _want_mounted(self, wanted: dict[str, Inode]) -> None:
        """Add files that are mount points, for whose directories the kernel reports no edits."""
        points = mounts.table()
        for root in self.rules.roots:
            real = os.path.realpath(root or "/").rstrip("/")
            for point in points:
                path = root + point.removeprefix(real)
                if point.startswith(f"{real}/") and self.rules.counts(path):
                    _want(path, wanted)
        for path in self.rules.files:
            if os.path.realpath(path) in points:
                _want(path, wanted)

    def _compare(self, path: str, looked: Looked) -> None:
        directory, _, name = path.rpartition("/")
        old = self._files.get(directory, {}).get(name)
        if _looks_same(path, old):
            return
        new = _content(path)
        if new is None:
            self._files.get(directory, {}).pop(name, None)
        else:
            self._files.setdefault(directory, {})[name] = new
        if (old and old.digest) != (new and new.digest):
            looked.changed[path] = None
        elif new and old and new.signature != old.signature:
            looked.rewritten[path] = None


def _want(path: str, wanted: dict[str, Inode]) -> None:
    if os.access(path, os.R_OK):  # inotify_add_watch(2) refuses a path that we may not read
        with contextlib.suppress(OSError):
            found = os.stat(path)  # noqa: PTH116
            wanted[path] = (found.st_dev, found.st_ino)


def _signature(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _looks_same(path: str, known: _Content | None) -> bool:
    try:
        found = os.stat(path)  # noqa: PTH116 - for thousands of files
    except OSError:
        return known is None
    return known is not None and known.settled and _signature(found) == known.signature


def _content(path: str) -> _Content | None:
    """Return the content of a regular file, None if there is none."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return _Content(_UNKNOWN, b"not ours to read")
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        signature = _signature(found)
        settled = time.time() - found.st_mtime > CLOCK
        if found.st_size > LARGE:
            return _Content(signature, repr(signature).encode(), settled)
        digest = hashlib.blake2b(os.read(fd, LARGE + 1), digest_size=16).digest()
        return _Content(signature, digest, settled)
    except OSError:
        return None
    finally:
        os.close(fd)


def _written_since(path: str, since: float) -> bool:
    try:
        # Not st_mtime, which `cp -p` or tar(1) may set to a time in the past: inode(7).
        return os.stat(path).st_ctime >= since  # noqa: PTH116
    except OSError:
        return True  # it was removed afterwards


def ways(path: str) -> list[str]:
    """Return each link on the way to an absolute `path`, and the name at which the way ends.

    A change of any of these names changes what `path` means. The way ends at the file, or at the
    first name that does not exist.
    """
    found: list[str] = []
    left, at = path.split("/")[::-1], "/"
    while left and len(found) < _LINKS_MAX:
        # No link is on the way to `at`, so `..` is the name above.
        at = os.path.normpath(os.path.join(at, left.pop()))  # noqa: PTH118 - text in, text out
        try:
            target = os.readlink(at)  # noqa: PTH115
        except FileNotFoundError:
            break
        except OSError:  # it is no link
            continue
        found.append(at)
        at = "/" if target.startswith("/") else os.path.dirname(at)  # noqa: PTH120
        left += target.split("/")[::-1]
    return [*found, at.rstrip("/")]
