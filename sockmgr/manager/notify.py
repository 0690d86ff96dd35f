"""What workers say on NOTIFY_SOCKET, delivered to the worker that the sender belongs to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.kernel.notify import Message, NotifySocket
from sockmgr.kernel.procfs import owner_of
from sockmgr.log import Log
from sockmgr.manager.service.service import Service
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")

MOST_HEARD = 4  # sockets of ours whose path is gone, but one


class NotifyRouter:
    """The socket at `path`, heard from now until `close`."""

    def __init__(
        self, path: Path, left: socket.socket | None, services: Callable[[], Iterable[Service]]
    ) -> None:
        """Open it; `left` is a predecessor's, owned."""
        self._path, self._services, self._foreign = path, services, 0
        self._heard: list[NotifySocket] = []
        self._socket = self._hear(NotifySocket(path, left))
        self._spare: NotifySocket | None = None

    def fileno(self) -> int:
        """Return the descriptor of the one at the path, borrowed, for the next manager."""
        return self._socket.fileno()

    def address(self) -> str:
        """Return what NOTIFY_SOCKET is for a worker that starts now: the path, if it is there."""
        if self._socket.holds:
            return str(self._path)
        if self._spare is None:
            self._spare = self._hear(NotifySocket.abstract())
        return self._spare.address

    def mend(self) -> bool:
        """Bind the path again if it is gone; raises ListenError.

        The former one is heard on: some have connected to it, and do so only once.
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
        """Take what has arrived; believe the kernel only as to who sent it."""
        groups = [service.processes for service in self._services()]
        workers = {
            each.pid: each
            for processes in groups
            for each in processes.running.values()
            if each.pid
        }
        before = self._ignored
        for message in [message for each in self._heard for message in each.receive()]:
            if worker := _sender(message, workers):
                worker.notified(message.pid, message.fields)
            else:
                self._foreign += 1
        # From 1, 2, 4, 8 ... on: a flood is no news.
        if self._ignored.bit_length() > before.bit_length():
            garbage = sum(each.garbage for each in self._heard)
            log.warning(EventKind.NOTIFY_DATAGRAMS_IGNORED, garbage=garbage, foreign=self._foreign)

    def close(self) -> None:
        """Close the socket and remove its path."""
        for sock in list(self._heard):
            self._leave(sock)

    @property
    def _ignored(self) -> int:
        return sum(each.garbage for each in self._heard) + self._foreign


def _sender(message: Message, workers: Mapping[int, WorkerProcess]) -> WorkerProcess | None:
    """Return the worker that a message is of; first what costs nothing, for anybody may send."""
    if not any(worker.may_be(message.uid) for worker in workers.values()):
        return None
    worker = workers.get(owner_of(message.pid, workers))
    return worker if worker and worker.may_be(message.uid) else None
