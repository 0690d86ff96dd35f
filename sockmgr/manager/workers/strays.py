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
        self._clean: set[frozenset[int]] = set()  # of which the last look found nothing

    def add(self, inodes: frozenset[int], worker: str) -> None:
        """Remember the sockets of a worker that has ended."""
        self._left[inodes] = worker
        self._clean.discard(inodes)

    def end(self, used: Set[int]) -> None:
        """Kill what holds sockets that no living worker has `used`.

        What two looks have found nothing of is forgotten: queues are renewed at each reload, and a
        look reads the descriptors of all our descendants.
        """
        found = self._kill(used)
        # What shares its queue with a worker may be its; the last holder's end tells.
        clean = {inodes for inodes in self._left if not inodes & used} - found
        for inodes in clean & self._clean:
            del self._left[inodes]
        self._clean = clean & self._left.keys()

    def end_and_forget(self, used: Set[int]) -> None:
        """Do so once more, when all is reaped, and look no more where nothing was."""
        found = self._kill(used)
        self._left = {inodes: name for inodes, name in self._left.items() if inodes in found}
        self._clean.clear()

    def _kill(self, used: Set[int]) -> set[frozenset[int]]:
        found: set[frozenset[int]] = set()
        for inodes, name in self._left.items():
            for pid in () if inodes & used else strays(inodes) - set(self._spared()):
                if kill_holder(pid, inodes):
                    log.warning(EventKind.STRAY_PROCESS_KILLED, pid=pid, left_by=name)
                    found.add(inodes)
        return found
