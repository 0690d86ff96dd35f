"""Notices that a client waits while no worker is ready, so that the next start is not put off.

It has an epoll of its own while it watches: the event loop may watch the same sockets already, for
a dispatcher that accepts from them.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Iterable

from sockmgr.manager.listeners.listener import Listener


class ClientWatch:
    """Calls `tell` once, when a connection waits in any queue of the listeners that are watched."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
        self._loop, self._tell = loop, tell
        self._epoll: select.epoll | None = None

    def watch(self, listeners: Iterable[Listener]) -> None:
        """Watch the queues that these listeners have now, unless a watch is under way."""
        if self._epoll:
            return
        self._epoll = select.epoll()
        for queue in (queue for listener in listeners for queue in listener.queues):
            self._epoll.register(queue, select.EPOLLIN)
        self._loop.add_reader(self._epoll, self._on_client)

    def close(self) -> None:
        """Watch nothing."""
        if self._epoll:
            self._loop.remove_reader(self._epoll)
            self._epoll.close()
            self._epoll = None

    def _on_client(self) -> None:
        self.close()
        self._tell()
