"""An event loop that is no more than epoll(7) and timers: nothing happens, nothing wakes up."""

from __future__ import annotations

import heapq
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

_READ = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_EVENTS = 64  # in one turn, so that timers and whoever was registered last have their turn as well

Callback = Callable[[], object]


class HasFileno(Protocol):
    def fileno(self) -> int:
        """Return the descriptor, borrowed."""


class Timer:
    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callback) -> None:
        """`at` is an instant of time.monotonic(), in seconds."""
        self.at = at
        self.call: Callback | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Calls back when descriptors, which are borrowed, are ready, and when timers are due.

    At most one reader and one writer a descriptor; remove both before it is closed, since epoll(7)
    watches the open file for as long as anybody has it.
    """

    def __init__(self) -> None:
        self.turns = 0  # how often it woke up
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._soon: deque[Callback] = deque()
        self._fresh: set[int] = set()  # descriptors that are watched since this turn

    def add_reader(self, watched: HasFileno | int, call: Callback) -> None:
        """Call whenever this is readable or has hung up."""
        self._set(self._readers, watched, call)

    def add_writer(self, watched: HasFileno | int, call: Callback) -> None:
        """Call whenever this is writable or has hung up."""
        self._set(self._writers, watched, call)

    def remove_reader(self, watched: HasFileno | int) -> None:
        """Do not call for input any more, if that was to be."""
        self._drop(self._readers, watched)

    def remove_writer(self, watched: HasFileno | int) -> None:
        """Do not call for room any more, if that was to be."""
        self._drop(self._writers, watched)

    def call_soon(self, call: Callback) -> None:
        self._soon.append(call)

    def call_later(self, seconds: float, call: Callback) -> Timer:
        """Call after so many seconds, unless the timer is cancelled."""
        timer = Timer(self.time() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def time(self) -> float:
        return time.monotonic()

    def turn(self, longest: float | None = None) -> None:
        """Wait until something is ready or due, at most `longest` seconds, and call for all."""
        ready = self._epoll.poll(self._patience(longest), _EVENTS)
        self.turns += 1
        self._fresh.clear()
        for fd, events in ready:
            # An earlier call of this turn may have closed this one, and another has its number now.
            if fd in self._fresh:
                continue
            # Either may be gone by now, since an earlier call of this turn may have removed it.
            if events & _READ and (read := self._readers.get(fd)):
                read()
            if events & _WRITE and (write := self._writers.get(fd)):
                write()
        if self._timers:
            self._call_due()
        for _ in range(len(self._soon)):
            self._soon.popleft()()

    def close(self) -> None:
        self._epoll.close()

    def _patience(self, longest: float | None) -> float | None:
        if self._soon:
            return 0.0
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return longest
        left = max(0.0, self._timers[0].at - self.time())
        return left if longest is None else min(left, longest)

    def _call_due(self) -> None:
        now = self.time()
        while self._timers and self._timers[0].at <= now:
            if call := heapq.heappop(self._timers).call:
                call()

    def _set(self, calls: dict[int, Callback], watched: HasFileno | int, call: Callback) -> None:
        fd = watched if isinstance(watched, int) else watched.fileno()
        known = fd in self._readers or fd in self._writers
        calls[fd] = call
        if not known:
            self._fresh.add(fd)
        (self._epoll.modify if known else self._epoll.register)(fd, self._interest(fd))

    def _drop(self, calls: dict[int, Callback], watched: HasFileno | int) -> None:
        fd = watched if isinstance(watched, int) else watched.fileno()
        if calls.pop(fd, None) is None:
            return
        if interest := self._interest(fd):
            self._epoll.modify(fd, interest)
        else:
            self._epoll.unregister(fd)

    def _interest(self, fd: int) -> int:
        reading = select.EPOLLIN if fd in self._readers else 0
        return reading | (select.EPOLLOUT if fd in self._writers else 0)
