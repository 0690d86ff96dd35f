"""Hear that watched files changed, and find out which: by inotify, or else by looking regularly.

Owns the inotify instance and the one thread that reads files. Decides nothing: `stirred` is called
in the loop when there may be something to `look` at, and whoever wants to know looks.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from sockmgr.dev.rules import Rules
from sockmgr.dev.tree import CLOCK, Looked, Tree
from sockmgr.errors import SockmgrError
from sockmgr.kernel.inotify import Change, Event, Inotify
from sockmgr.kernel.mounts import file_system

PERIOD = 1.0  # seconds between two looks where nothing tells of changes ...
SHARE = 50  # ... but they may cost at most this part of our time
# They do not hear what other machines, or the host, write.
REMOTE = frozenset({"9p", "afs", "ceph", "cifs", "fuse.sshfs", "nfs", "nfs4", "smb3", "vboxsf"})
_UNFINISHED = Change.CREATE | Change.MODIFY


class Watcher:
    """Watches what counts under some rules, from `open` to `close`."""

    def __init__(
        self, rules: Rules, stirred: Callable[[], None], complain: Callable[[SockmgrError], None]
    ) -> None:
        self._stirred, self._complain = stirred, complain
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._inotify: Inotify | None = None
        self._trouble: SockmgrError | None = None
        self._tree = Tree(rules, None)
        self._paths: set[str] = set()
        self._everything = False
        self._unfinished: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._cost = 0.0

    @property
    def writing(self) -> bool:
        """Whether a file is open that is not written to its end."""
        return bool(self._unfinished)

    @property
    def rules(self) -> Rules:
        """What counts."""
        return self._tree.rules

    async def open(self, since: float) -> Looked:
        """Begin to watch; return what was written `since` (time.time())."""
        self._trouble = _remote(self._tree.rules.roots)
        if self._trouble is None:
            self._open_inotify()
        return await self._look(lambda: self._tree.begin(since - CLOCK))

    async def look(self) -> Looked:
        """Find out what changed since the last look."""
        everything, self._everything = self._everything, False
        paths, self._paths = self._paths, set()
        self._unfinished.clear()
        if everything or self._inotify is None:
            return await self._look(self._tree.look_everywhere)
        return await self._look(partial(self._tree.look, paths))

    async def also(self, files: Iterable[str], since: float) -> Looked:
        """Watch these files, too; return which of them were written `since` (time.time())."""
        rules = self._tree.rules.also(files)
        return await self._look(lambda: self._tree.learn(rules, since - CLOCK))

    def close(self) -> None:
        """Watch no more."""
        if self._timer:
            self._timer.cancel()
        self._thread.shutdown(cancel_futures=True)
        self._close_inotify()

    # Private

    def _open_inotify(self) -> None:
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._trouble = _limit(error)
            return
        self._tree = Tree(self._tree.rules, self._inotify)
        self._loop.add_reader(self._inotify, self._on_readable)

    def _close_inotify(self) -> None:
        if self._inotify:
            self._loop.remove_reader(self._inotify)
            self._tree.stop_watching()
            self._inotify.close()
            self._inotify = None

    async def _look(self, look: Callable[[], Looked]) -> Looked:
        began = self._loop.time()
        looked = await self._loop.run_in_executor(self._thread, look)
        if self._inotify and self._tree.trouble:
            self._close_inotify()
            self._trouble = _limit(self._tree.trouble)
        self._cost = self._loop.time() - began
        if self._inotify is None:
            self._look_later()
        return looked

    def _look_later(self) -> None:
        period = max(PERIOD, SHARE * self._cost)
        if self._trouble:
            trouble, self._trouble = self._trouble, None
            trouble.means = f"edits are found by looking every {period:.1g} s instead"
            self._complain(trouble)
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(period, self._stirred)

    def _on_readable(self) -> None:
        heard = [self._hear(event) for event in self._inotify.read()] if self._inotify else []
        if any(heard):
            self._stirred()

    def _hear(self, event: Event) -> bool:
        """Note what an event tells of; return whether that can be of interest."""
        rules, directory = self._tree.rules, self._tree.directories.get(event.watch)
        if event.change & Change.OVERFLOW:
            self._everything = True
            return True
        if directory is None:
            return False
        if event.change & Change.IGNORED:
            self._tree.directories.pop(event.watch, None)
            return False
        if not event.name:  # the directory itself: its parent tells, but for the way to a root
            self._everything = self._everything or rules.leads(directory)
            return self._everything
        path = f"{directory}/{event.name}"
        is_directory = bool(event.change & Change.IS_DIRECTORY)
        counts = rules.enters(path) if is_directory else rules.counts(path)
        if not (counts or rules.leads(path)):
            return False
        self._paths.add(path)
        if event.change & _UNFINISHED and not is_directory:
            self._unfinished.add(path)
        else:
            self._unfinished.discard(path)
        return True


def _remote(roots: Iterable[str]) -> SockmgrError | None:
    for root in sorted(roots):
        kind = file_system(Path(root or "/"))
        if kind in REMOTE:
            return SockmgrError(f"{root} is on a file system ({kind}) that tells of no changes")
    return None


def _limit(error: OSError) -> SockmgrError:
    if error.errno not in (errno.ENOSPC, errno.EMFILE):
        return SockmgrError(f"cannot watch for edits: {error.strerror}")
    name = "max_user_watches" if error.errno == errno.ENOSPC else "max_user_instances"
    path = Path("/proc/sys/fs/inotify", name)
    limit = int(path.read_text())
    what = "directories" if error.errno == errno.ENOSPC else "instances"
    return SockmgrError(
        f"cannot watch for edits: the limit of {limit} inotify {what} is reached",
        do=f"sudo sysctl fs.inotify.{name}={max(4 * limit, 1024)}",
    )
