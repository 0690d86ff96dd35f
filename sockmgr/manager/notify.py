"""Delivers what workers say on NOTIFY_SOCKET to the worker that the sender belongs to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.kernel.notify import Message, NotifySocket
from sockmgr.kernel.procfs import owner_of
from sockmgr.log import Log
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")

MOST_HEARD = 4  # sockets: the one at the path, and former ones whose path is gone


class NotifyRouter:
    """The notify socket at `path`, which is read until `close`."""

    def __init__(
        self, path: Path, left: socket.socket | None, family: Family, save: Callable[[], None]
    ) -> None:
        """Read what workers of `family` say; own `left`, the socket of a predecessor, if any.

        `save` is called when the next manager must know what was said: a worker says it once.
        """
        self._path, self._family, self._foreign = path, family, 0
        self._save = save
        self._heard: list[NotifySocket] = []
        self._socket = self._hear(NotifySocket(path, left))
        self._spare: NotifySocket | None = None

    def fileno(self) -> int:
        """Return the descriptor of the socket at the path, borrowed, for the next manager."""
        return self._socket.fileno()

    def address(self) -> str:
        """Return NOTIFY_SOCKET for a new worker: the path, or an abstract name if it is gone."""
        if self._socket.holds:
            return str(self._path)
        # A name without a file: nobody can remove it, but only processes of this network namespace
        # can send to it (unix(7)).
        if self._spare is None:
            self._spare = self._hear(NotifySocket.abstract())
        return self._spare.address

    def mend(self) -> bool:
        """Bind the path again if it is gone; raises ListenError.

        The former socket is still read: workers may have connected to it, and do so only once.
        """
        if self._socket.holds:
            return False
        self._socket = self._hear(NotifySocket(self._path))
        if len(self._heard) > MOST_HEARD:
            self._leave(next(each for each in self._heard if each is not self._spare))
        return True

    def _hear(self, sock: NotifySocket) -> NotifySocket:
        self._heard.append(sock)
        asyncio.get_running_loop().add_reader(sock, self.deliver)
        return sock

    def _leave(self, sock: NotifySocket) -> None:
        self._heard.remove(sock)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()

    def deliver(self) -> None:
        """Deliver what has arrived.

        The kernel says which process sent each datagram, so workers are looked up by their pids: a
        message costs the same however many workers there are.
        """
        before, is_news = self._ignored, False
        for message in [message for each in self._heard for message in each.receive()]:
            if worker := self._sender(message):
                is_news |= worker.notified(message.pid, message.fields)
            else:
                self._foreign += 1
        # Now: the next receive() removes the messages, and whoever follows us cannot read them.
        if is_news:
            self._save()
        # From 1, 2, 4, 8 ... on: a flood is no news.
        if self._ignored.bit_length() > before.bit_length():
            garbage = sum(each.garbage for each in self._heard)
            log.warning(EventKind.NOTIFY_DATAGRAMS_IGNORED, garbage=garbage, foreign=self._foreign)

    def close(self) -> None:
        for sock in list(self._heard):
            self._leave(sock)

    @property
    def _ignored(self) -> int:
        return sum(each.garbage for each in self._heard) + self._foreign

    def _sender(self, message: Message) -> WorkerProcess | None:
        """Return the worker that sent a message; cheap checks come first, as anybody may send."""
        # The uid is a comparison; the process tree of the sender has to be read from /proc.
        if not self._family.may_be(message.uid):
            return None
        workers = self._family.workers
        worker = workers.get(owner_of(message.pid, workers))
        return worker if worker and worker.may_be(message.uid) else None
