"""The watch for listening sockets that a worker shut down; connections do not wake it up."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable


class ShutdownWatch:
    """An epoll that is readable when one of the sockets it watches was shut down."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._known: set[socket.socket] = set()  # as they were given
        self._watched: set[socket.socket] = set()  # those of them that can be shut down
        self._poll = select.poll()
        self._poll.register(self._epoll, select.POLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, sockets: Iterable[socket.socket]) -> None:
        """Watch these sockets and no others; one that was watched before may be closed already."""
        wanted = set(sockets)
        for gone in self._watched - wanted:
            if gone.fileno() >= 0:  # what is closed leaves an epoll by itself, epoll(7)
                self._epoll.unregister(gone)
        fresh = {each for each in wanted - self._known if each.type == socket.SOCK_STREAM}
        for new in fresh:
            # RDHUP alone: silent however many connections come. Edge-triggered, so that what cannot
            # be mended does not keep the manager awake.
            self._epoll.register(new, select.EPOLLRDHUP | select.EPOLLET)
        self._watched = (self._watched & wanted) | fresh
        self._known = wanted

    def leave(self, sock: socket.socket) -> None:
        """Watch this socket no more, until it is named to watch() again."""
        if sock in self._watched:
            self._epoll.unregister(sock)
        self._watched.discard(sock)
        self._known.discard(sock)

    @property
    def is_due(self) -> bool:
        """Whether a socket was shut down since the last clear(); asked at the cost of one call."""
        # poll(2) takes no event out of an epoll, as epoll_wait(2) would.
        return bool(self._poll.poll(0))

    def clear(self) -> None:
        """Be not readable any more, until another socket is shut down."""
        while self._epoll.poll(0):  # takes a bounded number of events at a time
            pass

    def close(self) -> None:
        self._epoll.close()
