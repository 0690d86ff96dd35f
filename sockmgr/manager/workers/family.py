"""The children of the manager: who of them is known, and who was left behind by somebody.

Whoever loses its parent becomes a child of the manager (PR_SET_CHILD_SUBREAPER, prctl(2)), and no
event says so. So what an ended worker left is looked for among the manager's children: once a turn
of the event loop, however many workers end in it. Owns no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING

from sockmgr.kernel.procfs import children, everybody

if TYPE_CHECKING:
    from sockmgr.manager.workers.worker import WorkerProcess

Groups = Mapping[int, Sequence[int]]  # who is in the session, or the process group, of this number


class Family:
    """The processes that somebody here has joined to it, until they are parted from it again.

    `workers` are those of them by pid that are workers.
    """

    def __init__(self, helpers: Callable[[], Collection[int]] = tuple) -> None:
        """`helpers` returns the children of the manager that do something for itself."""
        self.workers: dict[int, WorkerProcess] = {}
        # Counted: a pid may be given to the next process before its last owner lets go of it.
        self._known: Counter[int] = Counter()
        self._users: Counter[int] = Counter()  # of the workers
        self._helpers = helpers
        self._strangers: list[int] | None = None  # as found in this turn of the loop ...
        self._groups: Groups | None = None  # ... by session and group ...
        self._everybody: Groups | None = None  # ... and all processes that there are

    @property
    def known(self) -> Set[int]:
        """The processes whose ends are awaited here, by their pidfds."""
        return self._known.keys()

    def owned(self) -> Set[int]:
        """Return the processes that have an owner here, workers and helpers: no orphans."""
        return {*self._known, *self._helpers()}

    def join(self, pid: int) -> None:
        """Know a process, which its owner will reap."""
        self._known[pid] += 1

    def part(self, pid: int) -> None:
        self._known[pid] -= 1
        if not self._known[pid]:
            del self._known[pid]

    def join_worker(self, worker: WorkerProcess) -> None:
        self.join(worker.pid)
        self.workers[worker.pid] = worker
        self._users[worker.user] += 1

    def part_worker(self, worker: WorkerProcess) -> None:
        self.part(worker.pid)
        if self.workers.get(worker.pid) is worker:
            del self.workers[worker.pid]
        self._users[worker.user] -= 1

    def may_be(self, user: int) -> bool:
        """Tell whether a process of any worker can have this uid: root may take any."""
        return bool(self.workers) and (
            user in (0, os.geteuid()) or self._users[user] > 0 or self._users[0] > 0
        )

    # --- Who was left ----------------------------------------------------------------------------

    def strangers(self) -> Sequence[int]:
        """Return the children that nobody knows: the topmost of what others left behind."""
        if self._strangers is None:
            helpers = self._helpers()
            self._strangers = [
                pid
                for pid in children(os.getpid())
                if pid not in self._known and pid not in helpers
            ]
            self._forget_soon()
        return self._strangers

    def strangers_of(self, session: int) -> Sequence[int]:
        """Return those of them in the session of this process, or in its group.

        It may have been reaped, but nobody else may have got its pid since.
        """
        if self._groups is None:
            self._groups = _grouped(_group_and_session(self.strangers()))
        return self._groups.get(session, ())

    def anybody_of(self, session: int) -> Sequence[int]:
        """Return who is in the session of this process or in its group, of all that there are.

        It is not our child, so what it leaves becomes a child of somebody else.
        """
        if self._everybody is None:
            self._everybody = _grouped((one.pid, one.group, one.session) for one in everybody())
            self._forget_soon()
        return self._everybody.get(session, ())

    def _forget_soon(self) -> None:
        # What the next turn is about may have happened after these looks, nothing of this one has.
        asyncio.get_running_loop().call_soon(self._forget)

    def _forget(self) -> None:
        self._strangers = self._groups = self._everybody = None


def _group_and_session(pids: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield pid, os.getpgid(pid), os.getsid(pid)


def _grouped(members: Iterable[tuple[int, int, int]]) -> Groups:
    found: dict[int, list[int]] = defaultdict(list)
    for pid, group, session in members:
        for leader in {group, session}:
            found[leader].append(pid)
    return dict(found)
