"""What workers say on NOTIFY_SOCKET, delivered to the worker that the sender belongs to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sockmgr.kernel.notify import Message, NotifySocket
from sockmgr.log import Log
from sockmgr.procfs import owner_of
from sockmgr.running import Running
from sockmgr.service import Service

log = Log("sockmgr")


class Mailbox:
    """The socket at `path`, from now until `close`; call `deliver` when it is readable."""

    def __init__(
        self, path: Path, left: socket.socket | None, services: Callable[[], Iterable[Service]]
    ) -> None:
        """Open it; `left` is a predecessor's, owned."""
        self._socket = NotifySocket(path, left)
        self._services = services
        self._foreign = 0

    def fileno(self) -> int:
        """Return the descriptor, borrowed, to wait on."""
        return self._socket.fileno()

    def deliver(self) -> None:
        """Take what has arrived; believe the kernel only as to who sent it."""
        crews = [service.crew for service in self._services()]
        workers = {each.pid: each for crew in crews for each in crew.running.values() if each.pid}
        before = self._ignored
        for message in self._socket.receive():
            if worker := _sender(message, workers):
                worker.notified(message.pid, message.fields)
            else:
                self._foreign += 1
        # From 1, 2, 4, 8 ... on: a flood is no news.
        if self._ignored.bit_length() > before.bit_length():
            garbage = self._socket.garbage
            log.warning("notify datagrams ignored", garbage=garbage, foreign=self._foreign)

    def close(self) -> None:
        """Close the socket and remove its path."""
        self._socket.close()

    @property
    def _ignored(self) -> int:
        return self._socket.garbage + self._foreign


def _sender(message: Message, workers: Mapping[int, Running]) -> Running | None:
    """Return the worker that a message is of; first what costs nothing, for anybody may send."""
    if not any(worker.may_be(message.uid) for worker in workers.values()):
        return None
    worker = workers.get(owner_of(message.pid, workers))
    return worker if worker and worker.may_be(message.uid) else None
