"""Notices that a client comes: while no worker is ready, or to a dispatcher that may hang.

The watch has an epoll of its own: the event loop may watch the same sockets already.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Collection


class ClientWatch:
    """Calls `on_client` once, when a connection waits in one of the queues."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_client: Callable[[], None]) -> None:
        self._loop, self._on_wait = loop, on_client
        self._epoll: select.epoll | None = None

    def watch(self, queues: Collection[socket.socket]) -> None:
        """Watch these queues, which are borrowed, unless a watch is under way; none: nothing."""
        if not queues:
            self.close()
        if self._epoll or not queues:  # it is asked for after each fact while nobody is ready
            return
        self._epoll = select.epoll()
        for queue in queues:
            self._epoll.register(queue, select.EPOLLIN)
        self._loop.add_reader(self._epoll, self._on_client)

    def close(self) -> None:
        if self._epoll:
            self._loop.remove_reader(self._epoll)
            self._epoll.close()
            self._epoll = None

    def _on_client(self) -> None:
        # The client waits on, so the epoll would stay readable and wake the loop without end.
        self.close()
        self._on_wait()
