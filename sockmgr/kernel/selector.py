"""An epoll for the event loop that returns few events at a time, so that no turn takes long.

When a thousand workers end together, asyncio's own selector returns a thousand events, and a client
of the manager waits until all of them are handled.
"""

from __future__ import annotations

import math
import os
import select
import selectors

MOST_EVENTS = 16  # in one turn of the loop; the rest follows in the next turns, in the same order


class FewEvents(selectors.EpollSelector):
    """A selector for asyncio. epoll(7) keeps ready descriptors in a queue, so that none starves."""

    def __init__(self, most: int = MOST_EVENTS) -> None:
        super().__init__()
        self._most = most
        # A duplicate of the epoll, because EpollSelector has no way to ask its own for few events.
        self._few = select.epoll.fromfd(os.dup(self.fileno()))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the next events, at most `most`; [] after `timeout` seconds (None: waits on)."""
        # Rounded up to the milliseconds of epoll_wait(2): rounded down, the loop would spin.
        wait = -1 if timeout is None else math.ceil(max(0.0, timeout) * 1e3) * 1e-3
        found = []
        for fd, event in self._few.poll(wait, self._most):
            key = self.get_map().get(fd)
            if key is not None:
                # An error or a hangup wakes readers and writers alike.
                read = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
                write = selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0
                found.append((key, (read | write) & key.events))
        return found

    def close(self) -> None:
        self._few.close()
        super().close()
