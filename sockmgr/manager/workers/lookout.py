"""The looks at all workers that start, one after the other: what none of them would bear alone.

No event tells that a process begins to wait on a socket, so it has to be looked at. Who has just
started is looked at soon, and who takes long ever less often, as a part of the time that it took
already. However many start at once, all looks together get a bounded share of the manager's time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from sockmgr.kernel.connections import to_addresses
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener

SOONEST, LATEST = 0.003, 0.02  # seconds until the next look at a worker ...
AGE_SHARE = 4  # ... between these a part of its age: what a look can be late adds that much at most
LOOK_SHARE = 20  # times what a look took until the next at the same worker: its tree may be large
TURN_SHARE = 4  # times what looks in vain took until the next ones, at whomever
LONGEST_TURN = 0.01  # seconds after which others have the loop

log = Log("sockmgr")


class Turn:
    """What the looks of one turn share: it is asked for once, however many workers start."""

    def __init__(self) -> None:
        self._sampled: set[Listener] = set()
        self._accepted: dict[str, frozenset[int]] = {}

    def sample(self, listener: Listener) -> None:
        """Have a listener note how many connections wait there."""
        if listener not in self._sampled:
            self._sampled.add(listener)
            listener.sample()

    def accepted(self, listener: Listener) -> frozenset[int]:
        """Return the inodes of the connections that came to a listener; none if nobody can tell.

        The kernel walks all connections of the machine for that.
        """
        address = listener.address
        if address not in self._accepted:
            try:
                self._accepted[address] = to_addresses([address])
            except OSError:  # sock_diag(7) is refused
                self._accepted[address] = frozenset()
        return self._accepted[address]


@dataclass(slots=True, eq=False, kw_only=True)
class Watch:
    """One worker that is looked at by `look`, which tells whether it has seen enough."""

    look: Callable[[Turn], bool]
    since: float
    wanted: bool = field(default=True)


class Lookout:
    """Of one manager: it has a timer only while a worker starts."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # By when each is due; the number keeps those of one instant in order.
        self._due: list[tuple[float, int, Watch]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._told: set[str] = set()

    def tell(self, service: str, means: str, do: str) -> None:
        """Log, once for each meaning, that it is not for us to see what workers wait in."""
        if means not in self._told:
            self._told.add(means)
            log.warning(
                "workers cannot be looked at", service=service,
                because="/proc does not show us what a process of their user waits in",
                means=means, do=do,
            )  # fmt: skip

    def watch(self, look: Callable[[Turn], bool]) -> Watch:
        """Look again and again from now on, until `look` returns True or leave()."""
        now = self._loop.time()
        watch = Watch(look=look, since=now)
        self._put(watch, now + SOONEST)
        if self._timer is None:
            self._timer = self._loop.call_at(now + SOONEST, self._take_turn)
        return watch

    def leave(self, watch: Watch) -> None:
        # It stays in the heap until it is due: a heap gives up nothing from its middle.
        watch.wanted = False

    def _put(self, watch: Watch, due: float) -> None:
        heapq.heappush(self._due, (due, next(self._numbers), watch))

    def _take_turn(self) -> None:
        """Look at those that are due, in the order in which they are; O(log n) for each."""
        began = now = self._loop.time()
        in_vain, turn = 0.0, Turn()
        try:
            while self._due and self._due[0][0] <= began and now - began < LONGEST_TURN:
                *_, watch = heapq.heappop(self._due)
                if not watch.wanted:
                    continue
                before, has_seen = now, watch.look(turn)
                now = self._loop.time()
                if not has_seen and watch.wanted:
                    in_vain += now - before
                    pause = min(max(SOONEST, (now - watch.since) / AGE_SHARE), LATEST)
                    self._put(watch, now + max(pause, LOOK_SHARE * (now - before)))
        finally:
            self._timer = None
            if self._due:
                at = max(self._due[0][0], now + TURN_SHARE * in_vain)
                self._timer = self._loop.call_at(at, self._take_turn)
