"""Where a worker's connections come from: listening sockets, here, or the manager."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

log = logging.getLogger("uvicorn.error")

# Out of something that others may give back soon; accept(2). The connection stays in the queue.
_WAIT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 0.5


class Source(Protocol):
    """What hands connections to a worker: an Intake, or a dispatch channel (Connections)."""

    def start(self, take: Callable[[socket.socket], None], over: Callable[[], None]) -> None:
        """From now on hand each, non-blocking, to `take`, which owns it, in the running loop.

        `over` is called if it ends by itself.
        """

    def stop(self) -> None:
        """Hand over what is the worker's already, and then no more."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""


class Intake:
    """Accepts from listening sockets, which it owns.

    One at a turn, and not as many as there are: the others who wait at the same socket get theirs,
    so fewer of those that stay pile up in one process. listen() is not called again: its
    backlog is that of every process that has the socket.
    """

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self.listeners = list(listeners)
        self._take: Callable[[socket.socket], None]

    @property
    def ended(self) -> bool:
        """Whether it was stopped: what waits in the queue is not ours."""
        return not self.listeners

    def start(self, take: Callable[[socket.socket], None], over: Callable[[], None]) -> None:  # noqa: ARG002 - a listener does not end
        """Accept from now on, in the running event loop."""
        self._take = take
        for listener in self.listeners:
            listener.setblocking(False)
            self._resume(listener)

    def stop(self) -> None:
        """Accept no more. Others who have the socket go on; nothing is shut down."""
        for listener in self.listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self.listeners = []

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client is gone
        except OSError as error:
            if error.errno not in _WAIT:
                raise
            self._pause(listener, error)
            return
        accepted.setblocking(False)
        self._take(accepted)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Do not spin: the listener stays readable for as long as the queue is not empty."""
        log.error("cannot accept: %s; connections wait in the queue", error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self.listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)
