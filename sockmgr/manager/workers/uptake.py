"""What one worker is seen to take from its queues, beside what it waits for. Looks only.

No number tells how many connections a process has accepted. But a queue never gets shorter by
itself: a connection stays in it until it is accepted, also when its client has gone. And a
connection that was accepted is a descriptor of the process for as long as it is served.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sockmgr.kernel.procfs import descendants, sockets_of
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers.lookout import Turn


class Uptake:
    """The queues that `listeners` have at `lease`, compared from one look to the next."""

    def __init__(self, listeners: Sequence[Listener], lease: int) -> None:
        self._listeners, self._lease = listeners, lease
        self._most = 0
        self.seen = False

    def look(self) -> None:
        """See whether less waits now than at any look before."""
        # Where workers share one queue, another one may have taken what is missing.
        now = sum(listener.waiting(self._lease) for listener in self._listeners)
        self.seen = self.seen or now < self._most
        self._most = max(self._most, now)

    def is_served_by(self, pid: int, waited_on: Collection[int], turn: Turn) -> bool:
        """Tell whether a process is busy with connections that it accepted.

        It must have a connection of each listener that it does not wait on; those that it waits on
        have the inodes `waited_on`. A process that always has something to do never waits, and
        serves all the same.
        """
        given = {each.inode(self._lease) for each in self._listeners}
        busy = [each for each in self._listeners if each.inode(self._lease) not in waited_on]
        held = frozenset[int]().union(*map(sockets_of, [pid, *descendants(pid)])) - given
        # Which connections there are is asked for last: it costs the most.
        return bool(busy and held) and all(held & turn.accepted(each) for each in busy)
