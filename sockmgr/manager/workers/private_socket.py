"""A listening socket of one worker alone, at a path that only this manager leads to it by.

For a worker that accepts from one socket together with those before it, where no connection is for
it alone. Decides nothing.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from sockmgr.config.spec import Spec
from sockmgr.errors import SpawnError
from sockmgr.fleet.messages import Spawn, WorkerId
from sockmgr.kernel import unix_node
from sockmgr.kernel.closing import closed_on_error
from sockmgr.manager.listeners.listener import Listener

BACKLOG = 16


class PrivateSocket:
    """Owns the node at its path, and the socket if this manager has made it."""

    def __init__(self, path: Path, sock: socket.socket | None = None) -> None:
        """Use create(); of a worker that another manager started only the path is known."""
        self._path, self._socket = path, sock

    @classmethod
    def create(cls, path: Path) -> PrivateSocket:
        """Bind a socket that nobody but this user and root can connect to; raise SpawnError."""
        try:
            path.unlink(missing_ok=True)  # of a worker that was never told of, with this name
            return cls(path, unix_node.listen(path, socket.SOCK_STREAM, BACKLOG))
        except OSError as error:
            raise SpawnError(f"cannot bind {path}, to probe it by: {error.strerror}") from error

    def fileno(self) -> int:
        """Return the descriptor that the worker is to inherit, borrowed."""
        assert self._socket is not None  # noqa: S101 - a worker that runs is not started again
        return self._socket.fileno()

    async def connect(self) -> socket.socket:
        """Return a connection to the worker, the caller's, that does not block; raise OSError."""
        sock = socket.socket(socket.AF_UNIX)
        with closed_on_error(sock):
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, str(self._path))
        return sock

    def close(self) -> None:
        """Remove the path, since nobody is to connect any more."""
        self._path.unlink(missing_ok=True)
        if self._socket is not None:
            self._socket.close()


class PrivateSockets:
    """Those of the workers of one service that have one and have not served yet, by worker."""

    def __init__(self, service: str, directory: Callable[[], Path]) -> None:
        """Bind them in `directory`, in which only we and root can change names."""
        self._directory = directory
        self._prefix = f"probe-{binascii.crc32(service.encode()):08x}-"  # a name may be too long
        self._sockets: dict[WorkerId, PrivateSocket] = {}

    def make(self, command: Spawn, listeners: Iterable[Listener]) -> None:
        """Give a worker that is about to be started one if it needs it; raise SpawnError."""
        if needed(command.spec, listeners):
            self._sockets[command.worker] = PrivateSocket.create(self._path(command.worker))

    def find(self, command: Spawn, listeners: Iterable[Listener]) -> None:
        """Know that of a worker which another manager started and which has not served yet."""
        if needed(command.spec, listeners):
            with contextlib.suppress(SpawnError):  # the directory is gone, so nothing leads to it
                self._sockets[command.worker] = PrivateSocket(self._path(command.worker))

    def sweep(self) -> None:
        """Remove the paths of workers that no record tells of, as a manager died at their start."""
        with contextlib.suppress(SpawnError):  # the directory is gone, and its paths with it
            known = {self._path(worker) for worker in self._sockets}
            for path in self._directory().glob(f"{self._prefix}*"):
                if path not in known:
                    path.unlink(missing_ok=True)

    def of(self, worker: WorkerId) -> PrivateSocket | None:
        """Return that of a worker, borrowed; None if it has none, or none any more."""
        return self._sockets.get(worker)

    def drop(self, worker: WorkerId) -> None:
        """Let nobody connect by it any more: the worker serves, or has ended."""
        if private := self._sockets.pop(worker, None):
            private.close()

    def _path(self, worker: WorkerId) -> Path:
        """Return the path for a worker, the same for each manager."""
        return self._directory() / f"{self._prefix}{worker.generation}.{worker.slot}"


def needed(spec: Spec, listeners: Iterable[Listener]) -> bool:
    """Tell whether workers of this spec have one: it is asked for, and there is no other way."""
    return spec.takes_private and any(each.why_unreachable for each in listeners)
