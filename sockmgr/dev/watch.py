"""Know that watched files changed, and which: by what watchfiles hears, or by looking regularly.

Owns the thread in which watchfiles waits and the one that reads files. Decides nothing: `stirred`
is called in the loop when there may be something to `look` at, and who wants to know looks.
"""

from __future__ import annotations

import asyncio
import os.path
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from watchfiles import Change

from sockmgr.dev.listening import Changes, Listening
from sockmgr.dev.rules import Rules
from sockmgr.dev.tree import CLOCK, Inode, Looked, Tree
from sockmgr.errors import SockmgrError
from sockmgr.kernel import mounts

PERIOD = 1.0  # seconds between two looks where not all changes are told ...
SHARE = 50  # ... but they may cost at most this part of our time
MANY = 1000  # of so many changes at once the kernel may have dropped some


class Watcher:
    """Watches what counts under some rules, from `open` to `close`.

    `polling` True: look regularly and listen to nothing. None: look where somebody else may write.
    """

    def __init__(
        self,
        rules: Rules,
        stirred: Callable[[], None],
        complain: Callable[[SockmgrError], None],
        polling: bool | None = None,
    ) -> None:
        self._stirred, self._complain, self.polling = stirred, complain, polling
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._tree = Tree(rules)
        self._listens, self._looks, self._asks = not polling, bool(polling), polling is None
        self._listening: Listening | None = None
        self._heard: dict[str, Inode] = {}  # what the kernel tells of
        self._names: dict[str, list[str]] = {}  # one name of a directory -> all that it has
        self._mounts = mounts.Mounts()
        self._devices: set[int] = set()  # of which we know who writes there
        self._paths: set[str] = set()
        self._everything = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rules(self) -> Rules:
        """What counts."""
        return self._tree.rules

    async def open(self, since: float) -> Looked:
        """Begin to watch; return what was written `since` (time.time())."""
        self._loop.add_reader(self._mounts, self._on_mount)
        return await self._look(lambda: self._tree.begin(since - CLOCK))

    async def look(self) -> Looked:
        """Find out what changed since the last look."""
        everything, self._everything = self._everything, False
        paths, self._paths = self._paths, set()
        if everything or self._looks or len(paths) > MANY:
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
        self._loop.remove_reader(self._mounts)
        self._mounts.close()
        if self._listening:
            self._listening.close()
        self._thread.shutdown(cancel_futures=True)

    # --- Looking ------------------------------------------------------------------------------

    async def _look(self, look: Callable[[], Looked]) -> Looked:
        began = self._loop.time()
        looked = await self._loop.run_in_executor(self._thread, look)
        if self._asks:
            self._ask_who_writes()
        if self._listens and self._is_deaf_to_some:
            await self._listen()
            # What happened to new directories before they were heard.
            more = await self._loop.run_in_executor(self._thread, self._tree.look_everywhere)
            looked.changed |= more.changed
            looked.rewritten |= more.rewritten
            if self._is_deaf_to_some:
                self._note(everything=True)
        if self._looks:
            self._look_later(max(PERIOD, SHARE * (self._loop.time() - began)))
        return looked

    def _look_later(self, period: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(period, self._stirred)

    def _ask_who_writes(self) -> None:
        """Look regularly from now on if others may write what is watched, unheard by us."""
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
        self._looks, self._asks = True, False
        means = f"edits are found by looking every {PERIOD:.1g} s, or less often if that costs much"
        self._complain(SockmgrError(what, means=means, do=do))

    # --- Listening ----------------------------------------------------------------------------

    @property
    def _is_deaf_to_some(self) -> bool:
        return self._listens and not self._tree.wanted.items() <= self._heard.items()

    async def _listen(self) -> None:
        """Hear all that is wanted from now on, if it is still there."""
        names: dict[Inode, list[str]] = {}
        for path, inode in self._tree.wanted.items():
            names.setdefault(inode, []).append(path)
        self._heard = dict(self._tree.wanted)
        # The kernel has one watch for an inode, and so watchfiles one name.
        self._names = {same[0]: same for same in names.values()}
        old, self._listening = self._listening, Listening(self._names, self._hear, self._give_up)
        if old:
            await self._loop.run_in_executor(self._thread, old.close)
        try:
            await self._listening.begun
        except FileNotFoundError:  # gone again
            self._heard = {}
        except (OSError, RuntimeError, UnicodeError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._listens = False
        self._poll(*_because(error))
        self._stirred()

    def _hear(self, changes: Changes) -> None:
        """Take what watchfiles tells; runs in its thread."""
        found = [(change, name) for change, path in changes for name in self._all_names(path)]
        paths = {name for change, name in found if self._counts(change, name)}
        moved = {n for change, n in found if change is not Change.modified and n in self._heard}
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
        """Note what may have changed; what was `moved` is a directory that we heard by its name."""
        self._paths.update(paths)
        for name in moved:
            everything = True
            for one in [one for one in self._heard if f"{one}/".startswith(f"{name}/")]:
                del self._heard[one]
        self._everything = self._everything or everything
        self._stirred()

    def _on_mount(self) -> None:
        self._mounts.read()
        self._devices.clear()
        self._note(everything=True)


def _because(error: Exception) -> tuple[str, str]:
    """Return why nothing can be heard, and what to do."""
    for told, name, of in (
        ("limit reached", "max_user_watches", "directories"),
        ("os error 24", "max_user_instances", "instances"),
    ):
        if told in str(error):
            limit = int(Path("/proc/sys/fs/inotify", name).read_text())
            what = f"cannot hear of edits: the limit of {limit} inotify {of} is reached"
            return what, f"sudo sysctl fs.inotify.{name}={max(4 * limit, 1024)}"
    return f"cannot hear of edits: {error}", ""
