"""What the watched files hold, by content; and which of their directories are watched.

Made to run in a thread, one call at a time: it reads files. Whoever reads the events may look at
`directories` meanwhile. Decides nothing about when to look.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sockmgr.dev.rules import MARKS, Rules
from sockmgr.kernel.inotify import Inotify

LARGE = 4 << 20  # bytes; what is larger is known by its size and time only
CLOCK = 0.01  # the time stamps of files are that much behind time.time()
_UNKNOWN = (0, 0, 0)


@dataclass(slots=True)
class Looked:
    """Files whose content is another than before, and files that were written as they were."""

    changed: dict[str, None] = field(default_factory=dict)
    rewritten: dict[str, None] = field(default_factory=dict)


class _Content(NamedTuple):
    signature: tuple[int, int, int]
    digest: bytes


class Tree:
    """The files that count under some rules. Borrows the inotify instance; None: watch nothing."""

    def __init__(self, rules: Rules, inotify: Inotify | None) -> None:
        self.rules, self._inotify = rules, inotify
        self.trouble: OSError | None = None  # why not all can be watched: ENOSPC
        self.directories: dict[int, str] = {}  # number of a watch -> its directory
        self._numbers: dict[str, int] = {}
        self._files: dict[str, dict[str, _Content]] = {}  # directory -> name -> content

    def begin(self, since: float) -> Looked:
        """Learn everything; what was written `since` (time.time()) counts as changed."""
        looked = self.look_everywhere()
        looked.changed = {path: None for path in looked.changed if _written_since(path, since)}
        return looked

    def learn(self, rules: Rules, since: float) -> Looked:
        """Use other rules from now on; what is new by them counts only if it was written `since`.

        They must count all that the old ones did.
        """
        new, self.rules = rules.files - self.rules.files, rules
        looked = Looked()
        self._watch_ways(new)
        for path in new:
            self._compare(path, looked)
        looked.changed = {path: None for path in looked.changed if _written_since(path, since)}
        return looked

    def look(self, stirred: Collection[str]) -> Looked:
        """Look at these files and directories only."""
        if any(self.rules.leads(path) for path in stirred if path not in self.rules.files):
            return self.look_everywhere()
        looked = Looked()
        for path in stirred:
            if path in self._files or (self.rules.enters(path) and _is_directory(path)):
                self._look_below(path, looked)
            if self.rules.counts(path):
                self._compare(path, looked)
        return looked

    def look_everywhere(self) -> Looked:
        """Look at all there is: for the start, after lost events, and when nothing is watched."""
        looked = Looked()
        self._watch_ways(self.rules.roots | self.rules.files)
        for root in self.rules.roots:
            self._look_below(root, looked)
        for path in self.rules.files:
            if not _looks_same(path, self._known(path)):
                self._compare(path, looked)
        return looked

    def stop_watching(self) -> None:
        """Watch no directory any more: the inotify instance is about to be closed."""
        self._inotify = None
        self.directories.clear()
        self._numbers.clear()

    # Private

    def _watch_ways(self, targets: Iterable[str]) -> None:
        """Watch the directories in which roots and single files come and go."""
        for target in targets:
            above = target.rpartition("/")[0]
            while not _is_directory(above or "/"):
                above = above.rpartition("/")[0]
            self._watch(above)

    def _watch(self, directory: str) -> None:
        if self._inotify is None:
            return
        try:
            number = self._inotify.add(directory or "/")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                return  # gone again, or none of our business
            self.trouble = self.trouble or error
            return
        before = self._numbers.get(directory, number)
        if before != number and self.directories.get(before) == directory:
            self._inotify.remove(before)  # another directory had this name
        self.directories[number] = directory
        self._numbers[directory] = number

    def _look_below(self, top: str, looked: Looked) -> None:
        seen: set[str] = set()
        for directory, names in self._walk(top):
            seen.add(directory)
            known = self._files.setdefault(directory, {})
            for name in [*known.keys() - names, *names]:
                path = f"{directory}/{name}"
                if not _looks_same(path, known.get(name)):
                    self._compare(path, looked)
        below = f"{top}/"
        for directory in [d for d in self._files if d == top or d.startswith(below)]:
            if directory not in seen and not self._holds_files(directory):
                self._forget(directory, looked)

    def _walk(self, top: str) -> Iterator[tuple[str, set[str]]]:
        """Yield each directory to be looked into, watched already, with the files that count."""
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            # Watched before it is read, so that no change falls between.
            self._watch(directory)
            try:
                with os.scandir(directory or "/") as entries:
                    found = list(entries)
            except OSError:  # gone again, or none of our business
                continue
            if directory != top and MARKS & {entry.name for entry in found}:
                continue
            names: set[str] = set()
            for entry in found:
                path = f"{directory}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting += [path] if self.rules.enters(path) else []
                elif self.rules.counts(path):
                    names.add(entry.name)
            yield directory, names

    def _holds_files(self, directory: str) -> bool:
        """Tell whether single files in this directory are known, which no walk finds."""
        return any(f"{directory}/{name}" in self.rules.files for name in self._files[directory])

    def _forget(self, directory: str, looked: Looked) -> None:
        for name in self._files.pop(directory):
            looked.changed[f"{directory}/{name}"] = None
        number = self._numbers.pop(directory, None)
        if number is not None and self.directories.get(number) == directory:
            del self.directories[number]
            if self._inotify:
                self._inotify.remove(number)

    def _known(self, path: str) -> _Content | None:
        directory, _, name = path.rpartition("/")
        return self._files.get(directory, {}).get(name)

    def _compare(self, path: str, looked: Looked) -> None:
        directory, _, name = path.rpartition("/")
        old, new = self._known(path), _content(path)
        if new is None:
            self._files.get(directory, {}).pop(name, None)
        else:
            self._files.setdefault(directory, {})[name] = new
        if (old and old.digest) != (new and new.digest):
            looked.changed[path] = None
        elif new:
            looked.rewritten[path] = None


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - text in, text out


def _signature(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _looks_same(path: str, known: _Content | None) -> bool:
    try:
        found = os.stat(path)  # noqa: PTH116 - for thousands of files
    except OSError:
        return known is None
    return known is not None and _signature(found) == known.signature


def _content(path: str) -> _Content | None:
    """Return what a regular file holds, None if there is none; it may be written meanwhile."""
    try:
        # Never wait for the writer of a FIFO.
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
        if found.st_size > LARGE:
            return _Content(signature, repr(signature).encode())
        digest = hashlib.blake2b(os.read(fd, LARGE + 1), digest_size=16).digest()
        # The next write may get the same time stamp, if it comes soon.
        settled = time.time() - found.st_mtime > CLOCK
        return _Content(signature if settled else _UNKNOWN, digest)
    except OSError:
        return None
    finally:
        os.close(fd)


def _written_since(path: str, since: float) -> bool:
    try:
        # The time of the change, which a copy does not take over from the original: inode(7).
        return os.stat(path).st_ctime >= since  # noqa: PTH116
    except OSError:
        return True  # it is gone since
