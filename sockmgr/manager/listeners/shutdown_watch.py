"""The watch for listening sockets that a worker shut down; connections do not wake it up."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable


class ShutdownWatch:
    """An epoll that is readable when one of the sockets it watches was shut down."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[socket.socket] = set()

    def fileno(self) -> int:
        """Return the fd, borrowed."""
        return self._epoll.fileno()

    def watch(self, sockets: Iterable[socket.socket]) -> None:
        """Watch these sockets and no others; one that was watched before may be closed already."""
        wanted = {each for each in sockets if each.type == socket.SOCK_STREAM}
        for gone in self._watched - wanted:
            if gone.fileno() >= 0:  # what is closed leaves an epoll by itself, epoll(7)
                self._epoll.unregister(gone)
        for new in wanted - self._watched:
            # RDHUP alone: silent however many connections come. Edge-triggered, so that what cannot
            # be mended does not keep the manager awake.
            self._epoll.register(new, select.EPOLLRDHUP | select.EPOLLET)
        self._watched = wanted

    def clear(self) -> None:
        """Be not readable any more, until another socket is shut down."""
        self._epoll.poll(0)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()
