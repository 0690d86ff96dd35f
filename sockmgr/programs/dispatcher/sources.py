"""Where the connections of one service come from: its listeners, each taken from while it can be.

Borrows the listeners. What workers give away comes by moves.py.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sockmgr.programs.dispatcher.channel import BATCH
from sockmgr.programs.dispatcher.loop import Loop

# What accept(2) fails with when the next connection broke before it was accepted: take another.
_BROKEN = frozenset({
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
    errno.ETIMEDOUT,
})  # fmt: skip


class Sources:
    """Accepts what can be passed on at once, and leaves the rest in the kernel."""

    def __init__(
        self,
        loop: Loop,
        room: Callable[[str, int], int],
        take: Callable[[str, Sequence[int], OSError | None], None],
    ) -> None:
        """Ask `room` how many from a listener can be passed on, at most a limit, before taking any.

        `take` owns the connections that were accepted from a listener, and hears why no more was.
        """
        self._loop, self._room, self._take = loop, room, take
        self.keys: dict[socket.socket, str] = {}
        self._waiting: dict[socket.socket, None] = {}  # those that no worker has room for, in turn

    def listen(self, listeners: Mapping[socket.socket, str]) -> None:
        """Accept from these only, each with the name of its listener, and make them non-blocking.

        go() comes next. One that was shut down is left alone until it is named here again.
        """
        for sock in [sock for sock in self.keys if sock not in listeners]:
            self._drop(sock)
        for sock, key in listeners.items():
            if sock not in self.keys:
                self._waiting[sock] = None
            self.keys[sock] = key

    def go(self) -> None:
        """Try those again that no worker had room for, the one that waits longest first."""
        for listener in list(self._waiting):
            self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        key = self.keys[listener]
        room = self._room(key, BATCH)
        if not room:
            if listener not in self._waiting:
                self._pause(listener)
            return
        # Another process that holds this socket can make it block, and we must never wait.
        os.set_blocking(listener.fileno(), False)
        fds, error = accept(listener, room)
        if error and error.errno == errno.EINVAL:  # somebody shut it down
            self._take(key, fds, None)
            self._drop(listener)
            return
        self._take(key, fds, error)
        if not self._room(key, 1):
            self._pause(listener)
        elif listener in self._waiting:
            del self._waiting[listener]
            self._loop.add_reader(listener, partial(self._accept, listener))

    def _pause(self, listener: socket.socket) -> None:
        if listener not in self._waiting:
            self._loop.remove_reader(listener)
        # To the end: the listener served last waits longest when there is room for one.
        self._waiting.pop(listener, None)
        self._waiting[listener] = None

    def _drop(self, listener: socket.socket) -> None:
        self._pause(listener)
        del self._waiting[listener], self.keys[listener]


def accept(listener: socket.socket, limit: int) -> tuple[list[int], OSError | None]:
    """Accept at most `limit` connections; return their fds, and why one that waits cannot be."""
    fds: list[int] = []
    for _ in range(limit):
        try:
            # socket.accept() makes a socket object that we would throw away. It takes 10 of 12
            # microseconds, as much as everything else that is done for a connection.
            fds.append(listener._accept()[0])  # type: ignore[attr-defined]
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno not in _BROKEN:
                return fds, error
    return fds, None
