"""What workers leave behind: processes that outlive them and still hold their queue.

Such a process would go on taking connections meant for the next holder of the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set

from sockmgr.api.records import EventKind
from sockmgr.kernel.process import kill_holder, strays
from sockmgr.log import Log

log = Log("sockmgr")


class Strays:
    """The sockets that workers had when they ended, and whose they were."""

    def __init__(self, spared: Callable[[], Collection[int]]) -> None:
        """Never touch the processes `spared`: they hold our sockets because we want it."""
        self._spared = spared
        self._left: dict[frozenset[int], str] = {}

    def add(self, inodes: frozenset[int], worker: str) -> None:
        """Remember the sockets of a worker that has ended."""
        self._left[inodes] = worker

    def end(self, used: Set[int]) -> set[frozenset[int]]:
        """Kill what holds sockets that no living worker has `used`; return whose they were."""
        found: set[frozenset[int]] = set()
        for inodes, name in self._left.items():
            # What shares its queue with a worker may be its; the last holder's end tells.
            for pid in () if inodes & used else strays(inodes) - set(self._spared()):
                if kill_holder(pid, inodes):
                    log.warning(EventKind.STRAY_PROCESS_KILLED, pid=pid, left_by=name)
                    found.add(inodes)
        return found

    def end_and_forget(self, used: Set[int]) -> None:
        """Do so once more, when all is reaped, and look no more where nothing was."""
        found = self.end(used)
        self._left = {inodes: name for inodes, name in self._left.items() if inodes in found}
