"""Which queues of a service's listeners are fed, and the wait until one that is not is empty.

Performs each Feed at once and puts the Quiet that it owes. Owns the tasks that wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from sockmgr.core.model import Fact, Quiet
from sockmgr.listener import Listener


class Feeding:
    """What is fed now, by lease, and of which listeners."""

    def __init__(self, tasks: asyncio.TaskGroup, put: Callable[[Fact], None]) -> None:
        self._tasks, self._put = tasks, put
        self._fed: dict[int, tuple[Listener, ...]] = {}
        self._quieting: dict[int, asyncio.Task[None]] = {}

    def adopt(self, listeners: tuple[Listener, ...]) -> tuple[int, ...]:
        """Return the leases on which connections wait since before our time, most first."""
        left: Counter[int] = Counter()
        for listener in listeners:
            left.update(listener.left)
        leases = tuple(lease for lease, _ in left.most_common())
        # As if they had been fed: the first Feed looks after those that it leaves out.
        self._fed = dict.fromkeys(leases, listeners)
        return leases

    def resume(
        self, fed: Mapping[int, tuple[Listener, ...]], unquiet: Mapping[int, tuple[Listener, ...]]
    ) -> None:
        """Go on where a predecessor was: `fed` is fed, and Quiet is owed for `unquiet`."""
        self._fed = dict(fed)
        for lease, listeners in unquiet.items():
            self._owe_quiet(lease, listeners)

    def feed(self, weights: Mapping[int, int], users: Mapping[int, tuple[Listener, ...]]) -> None:
        """Feed these leases only; `users` are the listeners of each."""
        shares: dict[Listener, dict[int, int]] = {}
        for lease, listeners in users.items():
            for listener in listeners:
                shares.setdefault(listener, {})[lease] = weights[lease]
        for listener, share in shares.items():
            listener.feed(share)
        self.give_up(users.keys() & self._quieting.keys())
        for lease in self._fed.keys() - users.keys():
            # As they were when it was fed: its generation may be gone, and clients still wait.
            self._owe_quiet(lease, self._fed[lease])
        self._fed = dict(users)

    def keep_waiting(self, unquiet: Collection[int]) -> None:
        """Wait for these only; of the others nobody is left who would empty them."""
        self.give_up(self._quieting.keys() - unquiet)

    def give_up(self, leases: Collection[int]) -> None:
        """Wait no longer for these."""
        for lease in list(leases):
            self._quieting.pop(lease).cancel()

    def close(self) -> None:
        """Wait for nothing any more."""
        self.give_up(self._quieting)

    def _owe_quiet(self, lease: int, listeners: tuple[Listener, ...]) -> None:
        quiet = self._await_quiet(lease, listeners)
        self._quieting[lease] = self._tasks.create_task(quiet, name=f"quiet {lease}")

    async def _await_quiet(self, lease: int, listeners: tuple[Listener, ...]) -> None:
        for listener in listeners:
            await listener.quiet(lease)
        del self._quieting[lease]
        self._put(Quiet(lease=lease))
