"""The process tree of a worker: all of it is told to stop, waited for, and ended.

While the main process lives that is its own business. What is left after it, fleet/descendants.py
judges; here it is looked for, signalled and waited for, by pidfds and not by looking again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator

from sockmgr.api.records import EventKind
from sockmgr.fleet.descendants import Key, Orphan, Orphans, key
from sockmgr.kernel.delegation import Group
from sockmgr.kernel.process import Process, open_pidfd, send
from sockmgr.kernel.procfs import (
    descendants,
    may_see_descriptors,
    member,
    sockets_of,
    tree,
    user_of,
)
from sockmgr.log import Log
from sockmgr.manager.workers.family import Family

KILL_SIGNAL = 9
WATCHED = 16  # pidfds at a time: all must end, so it does not matter whose end is seen first
LOOK_SHARE = 5  # times the cost of a look until the next: a worker may have thousands
RETRY = 0.1  # seconds until the next look, where no pidfd can be had
_STDERR = 2

log = Log("sockmgr")


class Remains:
    """Processes that are to end. Calls `done` when all have, unless closed before."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        find: Callable[[], Iterable[int]],
        sockets: Callable[[], frozenset[int] | None],
        orphans: Orphans,
        done: Callable[[], None],
        group: Group | None = None,
    ) -> None:
        """`find` returns the topmost of them; who has one of `sockets` serves (None: of any).

        Nobody else is in `group`.
        """
        self.orphans, self._group = orphans, group
        self._name, self._loop, self._find, self._sockets = name, loop, find, sockets
        self._done = done
        self._watched: list[int] = []  # pidfds
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def look(self) -> bool:
        """Do what is due, and wait for more to do; tell whether anybody serves."""
        if self._is_over:  # the end is about to be told, or has been
            return False
        # Processes are found anew each time: one that was told to stop may have started others.
        self.close()
        now, present = self._loop.time(), list(self._present())
        due = self.orphans.due(present, now)
        self._tell(due)
        for orphan, number in due:
            send(*key(orphan), number)
        if self._group and sum(number == KILL_SIGNAL for _, number in due) == len(present) > 0:
            self._group.kill()  # who was forked since the look as well
        cost = self._loop.time() - now
        self._next = now + cost + LOOK_SHARE * cost
        waited_for = self.orphans.waited_for(present, now)
        if waited_for:
            self._wait(waited_for)
            return self.orphans.serve(present)
        # Nobody is waited for any more, but some live: they hang in the kernel, beyond any signal.
        for orphan in present:
            log.error("process does not die", pid=orphan.pid, left_by=self._name)
        self._is_over = True
        self._done()
        return False

    def close(self) -> None:
        for fd in self._watched:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._watched.clear()
        if self._timer:
            self._timer.cancel()

    def _present(self) -> Iterator[Orphan]:
        # With descendants: a server may sit below a shell that left the worker's session.
        pids = dict.fromkeys(pid for root in self._find() for pid in tree(root))
        ours = self._sockets() if pids else frozenset()
        for each in filter(None, map(member, pids)):
            held = sockets_of(each.pid, above=_STDERR)
            hidden = not may_see_descriptors(each.pid)  # it is given the time of one that serves
            yield Orphan(
                pid=each.pid,
                parent=each.parent,
                started=each.started,
                serves=hidden or bool(held if ours is None else held & ours),
            )

    def _wait(self, present: list[Orphan]) -> None:
        now = self._loop.time()
        at = self.orphans.next(now)
        try:
            for each in present[:WATCHED]:
                if (fd := open_pidfd(*key(each))) is None:
                    at = now  # it has just ended
                else:
                    self._watched.append(fd)
                    self._loop.add_reader(fd, self._on_end)
        except OSError:  # no descriptor is left
            at = min(at, now + RETRY)
        if at < math.inf:
            self._timer = self._loop.call_at(at, self.look)

    def _on_end(self) -> None:
        """One has ended: look again, but do not spend all our time with that."""
        self.close()
        self._timer = self._loop.call_at(self._next, self.look)

    def _tell(self, due: list[tuple[Orphan, int]]) -> None:
        """Tell of each kind in one record, however many they are."""
        killed = [orphan.pid for orphan, number in due if number == KILL_SIGNAL]
        told = [one.pid for one, number in due if number != KILL_SIGNAL and one.serves]
        if killed:
            more = {"number": len(killed)} if killed[1:] else {}
            log.warning(EventKind.STRAY_PROCESS_KILLED, pid=killed[0], **more, left_by=self._name)
        if told:
            more = {"number": len(told)} if told[1:] else {}
            log.info("process told to stop", pid=told[0], **more, left_by=self._name)


class Tree:
    """Of one worker, whose main process is `process`, borrowed."""

    def __init__(
        self,
        name: str,
        process: Process,
        loop: asyncio.AbstractEventLoop,
        sockets: Callable[[], frozenset[int] | None],
        user: int,
        family: Family,
        group: Group | None = None,
    ) -> None:
        """`sockets` returns what those have who serve, `user` is the worker's.

        All of it is in `group`, and nobody else is; without one it is what parents and session say.
        """
        self.group = group
        self._name, self._process, self._loop, self._sockets = name, process, loop, sockets
        self._user, self._family = user, family
        self._away: set[Key] = set()
        self._is_killed = False
        self._remains: Remains | None = None

    @property
    def told(self) -> tuple[Key, ...]:
        """The descendants that have had the stop signal."""
        return tuple(sorted(self._remains.orphans.told)) if self._remains else ()

    def remember(self) -> None:
        """Note who has left the session: when its parents have ended nothing tells whose it is."""
        for pid in descendants(self._process.pid):
            if not self._has(pid) and (found := member(pid)):
                self._away.add((pid, found.started))

    def kill(self) -> None:
        self._is_killed = True
        # If the main process has ended already, only what it left is to be killed.
        if self._remains:
            self._remains.orphans.deadline = self._loop.time()
            self._remains.look()
            return
        # Processes that left the session are noted first, while parents still show whose they are.
        self.remember()
        self._process.signal(KILL_SIGNAL)
        self._process.signal_group(KILL_SIGNAL)
        if self.group:
            self.group.kill()

    def end(self, orphans: Orphans, done: Callable[[], None]) -> bool:
        """The main process has ended, not reaped yet: have `orphans` judge who is left.

        Tells whether anybody serves; `done` is called when nobody is left, at once perhaps.
        """
        if self._is_killed:
            orphans.deadline = self._loop.time()
        self._remains = Remains(
            self._name, self._loop, self._find, self._sockets, orphans, done, self.group
        )
        return self._remains.look()

    def close(self) -> None:
        if self._remains:
            self._remains.close()

    def _find(self) -> list[int]:
        main = self._process
        if main.is_child():  # so all that it leaves become our children: PR_SET_CHILD_SUBREAPER
            found = list(self._family.strangers_of(main.pid))
        else:
            # Nothing keeps its number from being another session's now, but not one of its user's.
            others = (pid for pid in self._family.anybody_of(main.pid) if pid != main.pid)
            found = [pid for pid in others if self._user in (0, user_of(pid))]
        away = [pid for pid, started in self._away if _is(pid, started)]
        grouped = self.group.members() if self.group else ()
        return [*found, *away, *(pid for pid in grouped if pid != main.pid)]

    def _has(self, pid: int) -> bool:
        """Tell whether a process is in the session, or in the group: older managers made those."""
        with contextlib.suppress(ProcessLookupError):
            return self._process.pid in (os.getsid(pid), os.getpgid(pid))
        return False


def _is(pid: int, started: int) -> bool:
    found = member(pid)
    return found is not None and found.started == started
