"""What workers leave behind: processes that outlive them and still hold their queue.

Such a process would go on taking connections meant for the next holder of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Set

from sockmgr.api.records import EventKind
from sockmgr.kernel.process import kill_holder
from sockmgr.kernel.procfs import sockets_of, tree
from sockmgr.log import Log
from sockmgr.manager.workers.family import Family

log = Log("sockmgr")

LOOK_PACE = 0.05  # seconds between two looks, however many workers end meanwhile


class Strays:
    """The sockets that workers of one service had when they ended, and whose they were.

    A look costs what there is of strangers and of living workers of the service, not what ended:
    its pace bounds what all looks cost.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, family: Family, used: Callable[[], Set[int]]
    ) -> None:
        """`used` returns the sockets that living workers have: who holds those may be theirs."""
        self._loop, self._family, self._used = loop, family, used
        self._left: dict[frozenset[int], str] = {}
        self._clean: set[frozenset[int]] = set()  # of which the last look found nothing
        self._killed: set[int] = (
            set()
        )  # pids in the last look: who is killed has sockets for a while
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, inodes: frozenset[int], worker: str) -> None:
        """Look soon, and once more after that, who has the sockets of a worker that has ended."""
        if inodes:  # a worker that was passed connections had no listener to leave behind
            self._left[inodes] = worker
            self._clean.discard(inodes)
            self._look_soon()

    def end(self) -> None:
        """Kill what holds sockets that no living worker uses.

        What two looks have found nothing of is forgotten: queues are renewed at each reload, and
        who is forked as its parent dies may be no child of ours at the first look.
        """
        used = self._used()
        found = self._kill(used)
        # What shares its queue with a worker may be its; the last holder's end tells.
        unused = {inodes for inodes in self._left if not inodes & used}
        clean = unused - found
        for inodes in clean & self._clean:
            del self._left[inodes]
        self._clean = clean & self._left.keys()
        if unused & self._left.keys():
            self._look_soon()

    def end_and_forget(self) -> None:
        """Do so once more, when all is reaped, and look no more where nothing was."""
        # Orphans have just become our children, so a look finds those that were missed before.
        if self._left:
            found = self._kill(self._used())
            self._left = {inodes: name for inodes, name in self._left.items() if inodes in found}
            self._clean.clear()

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(max(self._loop.time(), self._next), self._look)

    def _look(self) -> None:
        self._timer, self._next = None, self._loop.time() + LOOK_PACE
        self.end()

    def _kill(self, used: Set[int]) -> set[frozenset[int]]:
        left = {inodes: name for inodes, name in self._left.items() if not inodes & used}
        found: set[frozenset[int]] = set()
        before, self._killed = self._killed, set()
        # All are found before the first is killed, whose children would be somebody else's then.
        for pid, held in list(self._holders()) if left else ():
            for inodes, name in left.items():
                if not held.isdisjoint(inodes) and kill_holder(pid, inodes):
                    found.add(inodes)
                    if pid not in before | self._killed:
                        log.warning(EventKind.STRAY_PROCESS_KILLED, pid=pid, left_by=name)
                    self._killed.add(pid)
        return found

    def _holders(self) -> Iterator[tuple[int, frozenset[int]]]:
        """Yield each process that was left behind, by whomever, with the sockets that it has."""
        for stranger in self._family.strangers():
            for pid in tree(stranger):
                yield pid, sockets_of(pid)
