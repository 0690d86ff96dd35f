"""Finds out which watched files changed: by listening with watchfiles, or by looking regularly.

Owns the thread in which watchfiles waits, and the one that reads files. Decides nothing: it calls
`noticed` in the loop when something may have changed, and its owner then calls `look`.
"""

from __future__ import annotations

import asyncio
import os.path
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from watchfiles import Change

from sockmgr.dev.rules import Rules
from sockmgr.dev.tree import CLOCK, Inode, Looked, Tree
from sockmgr.dev.watch_thread import Changes, WatchThread
from sockmgr.errors import SockmgrError
from sockmgr.kernel import mounts

PERIOD = 1.0  # seconds between two looks where the kernel does not report every change ...
SHARE = 50  # ... or longer: this many times as long as a look takes
MANY = 1000  # after this many changes at once, look everywhere: the kernel may have dropped some


class Watcher:
    """Watches the files that count under some rules, from `open` to `close`.

    With `polling` True it only looks regularly; with False it only listens; with None it listens,
    and looks regularly as well if others may write to a watched file system unheard.
    """

    def __init__(
        self,
        rules: Rules,
        noticed: Callable[[], None],
        complain: Callable[[SockmgrError], None],
        polling: bool | None = None,
    ) -> None:
        self._noticed, self._complain, self.polling = noticed, complain, polling
        self._loop = asyncio.get_running_loop()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._tree = Tree(rules)
        self._uses_events, self._polls, self._may_poll = not polling, bool(polling), polling is None
        self._watch_thread: WatchThread | None = None
        self._watched: dict[str, Inode] = {}  # the paths whose changes the kernel reports
        self._names: dict[str, list[str]] = {}  # one name of a directory -> all names that it has
        self._mounts = mounts.Mounts()
        self._devices: set[int] = set()  # those already checked for other writers
        self._paths: set[str] = set()  # the paths that the next look is to compare
        self._everything = False  # the next look is to compare all files
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rules(self) -> Rules:
        return self._tree.rules

    async def open(self, since: float) -> Looked:
        """Begin to watch; return the files that were written `since` (time.time())."""
        self._loop.add_reader(self._mounts, self._on_mount)
        return await self._look(lambda: self._tree.begin(since - CLOCK))

    async def look(self) -> Looked:
        """Return the files that changed since the last look."""
        everything, self._everything = self._everything, False
        paths, self._paths = self._paths, set()
        if everything or self._polls or len(paths) > MANY:
            return await self._look(self._tree.look_everywhere)
        return await self._look(partial(self._tree.look, paths))

    async def also(self, files: Iterable[str], since: float) -> Looked:
        """Watch these files as well; return those that were written `since` (time.time())."""
        rules = self._tree.rules.also(files)
        return await self._look(lambda: self._tree.learn(rules, since - CLOCK))

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._mounts)
        self._mounts.close()
        if self._watch_thread:
            self._watch_thread.close()
        self._reader.shutdown(cancel_futures=True)

    # --- Looking ------------------------------------------------------------------------------

    async def _look(self, look: Callable[[], Looked]) -> Looked:
        began = self._loop.time()
        looked = await self._loop.run_in_executor(self._reader, look)
        if self._may_poll:
            self._find_other_writers()
        if self._uses_events and self._misses_some:
            await self._watch_wanted()
            # New directories may have changed before the kernel began to report on them.
            more = await self._loop.run_in_executor(self._reader, self._tree.look_everywhere)
            looked.changed |= more.changed
            looked.rewritten |= more.rewritten
            if self._misses_some:
                self._note(everything=True)
        if self._polls:
            self._look_later(max(PERIOD, SHARE * (self._loop.time() - began)))
        return looked

    def _look_later(self, period: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(period, self._noticed)

    def _find_other_writers(self) -> None:
        """Look regularly from now on if others may write to a watched file system unheard."""
        path_on = {device: path for path, (device, _) in self._tree.wanted.items()}
        if path_on.keys() <= self._devices:
            return
        self._devices.update(path_on)
        points = mounts.table()
        types = {path: mounts.file_system(path, points) for path in path_on.values()}
        shared = mounts.shared_types(set(types.values()))
        for path in sorted(path for path, kind in types.items() if kind in shared)[:1]:
            what = f"{path} is on a file system ({types[path]}) where others may write unheard"
            self._poll(what, "force_polling = false under [dev], if all edit on this machine")

    def _poll(self, what: str, do: str) -> None:
        self._polls, self._may_poll = True, False
        means = f"edits are found by looking every {PERIOD:.1g} s, or less often if that costs much"
        self._complain(SockmgrError(what, means=means, do=do))

    # --- Listening ----------------------------------------------------------------------------

    @property
    def _misses_some(self) -> bool:
        return self._uses_events and not self._tree.wanted.items() <= self._watched.items()

    async def _watch_wanted(self) -> None:
        """Listen to every path that the tree wants to hear of, if it still exists."""
        names: dict[Inode, list[str]] = {}
        for path, inode in self._tree.wanted.items():
            names.setdefault(inode, []).append(path)
        self._watched = dict(self._tree.wanted)
        # The kernel has one watch for an inode, so watchfiles reports only one of its names.
        self._names = {same[0]: same for same in names.values()}
        old = self._watch_thread
        self._watch_thread = WatchThread(self._names, self._on_changes, self._give_up)
        if old:
            await self._loop.run_in_executor(self._reader, old.close)
        try:
            await self._watch_thread.begun
        except FileNotFoundError:  # a path is gone again: the next look says which are wanted
            self._watched = {}
        except (OSError, RuntimeError, UnicodeError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._uses_events = False
        self._poll(*_because(error))
        self._noticed()

    def _on_changes(self, changes: Changes) -> None:
        """Take the changes that watchfiles reports. Runs in its thread."""
        found = [(change, name) for change, path in changes for name in self._all_names(path)]
        paths = {name for change, name in found if self._counts(change, name)}
        moved = {n for change, n in found if change is not Change.modified and n in self._watched}
        if paths or moved:
            self._loop.call_soon_threadsafe(partial(self._note, paths, moved))

    def _all_names(self, path: str) -> list[str]:
        directory, _, name = path.rpartition("/")
        same = self._names.get(directory or "/")
        return [f"{one.rstrip('/')}/{name}" for one in same] if same else [path]

    def _counts(self, change: Change, path: str) -> bool:
        rules = self._tree.rules
        if path in self._tree.leads or rules.counts(path):
            return True
        return change is Change.added and rules.enters(path) and os.path.isdir(path)  # noqa: PTH112

    def _note(
        self, paths: Iterable[str] = (), moved: Iterable[str] = (), *, everything: bool = False
    ) -> None:
        """Note the paths that may have changed.

        In `moved` are names of directories that came or went, so they must be listened to anew.
        """
        self._paths.update(paths)
        for name in moved:
            everything = True
            for one in [one for one in self._watched if f"{one}/".startswith(f"{name}/")]:
                del self._watched[one]
        self._everything = self._everything or everything
        self._noticed()

    def _on_mount(self) -> None:
        self._mounts.read()
        self._devices.clear()
        self._note(everything=True)


def _because(error: Exception) -> tuple[str, str]:
    """Return why watchfiles cannot listen, and what to do."""
    for part, name, of in (
        ("limit reached", "max_user_watches", "directories"),
        ("os error 24", "max_user_instances", "instances"),
    ):
        if part in str(error):
            limit = int(Path("/proc/sys/fs/inotify", name).read_text())
            what = f"cannot hear of edits: the limit of {limit} inotify {of} is reached"
            return what, f"sudo sysctl fs.inotify.{name}={max(4 * limit, 1024)}"
    return f"cannot hear of edits: {error}", ""
