"""A way for commands to reach new workers before clients do: a local port, for some users only.

What comes there is passed on by a connection of our own. Owns the port and all connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection

from sockmgr.errors import ListenError
from sockmgr.kernel import connections
from sockmgr.manager.probes.prober import Reach

MOST = 16  # visitors at a time
PIECE = 64 << 10  # bytes


class Door:
    """Open until close(); it lets in the processes of `users`, by the kernel's word only."""

    def __init__(self, reach: Reach, users: Collection[int], *, tls: bool) -> None:
        """Raises OSError."""
        self._reach, self._users = reach, users
        self._loop = asyncio.get_running_loop()
        self._visits: set[asyncio.Task[None]] = set()
        self._port = socket.create_server(("127.0.0.1", 0))
        self._port.setblocking(False)
        self.url = f"http{'s' * tls}://127.0.0.1:{self._port.getsockname()[1]}"
        self._loop.add_reader(self._port, self._on_visitor)

    def close(self) -> None:
        """Let nobody in any more, and send away who is there."""
        self._loop.remove_reader(self._port)
        self._port.close()
        for visit in self._visits:
            visit.cancel()

    def _on_visitor(self) -> None:
        try:
            client, _ = self._port.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left: who waits here would wake us again and again
            self.close()
            return
        # A host may be set up so that others reach 127.0.0.1, and here are users of all kinds. Only
        # of a process on this machine does the kernel tell whose it is.
        if connections.user_of_other(client) not in self._users or len(self._visits) >= MOST:
            client.close()
            return
        visit = self._loop.create_task(self._let_in(client), name="visit")
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _let_in(self, client: socket.socket) -> None:
        with client:
            client.setblocking(False)
            try:
                worker = await self._reach()
            except (ListenError, OSError):  # who comes sees that the connection ends, and may retry
                return
            with worker:
                await asyncio.gather(self._pass(client, worker), self._pass(worker, client))

    async def _pass(self, one: socket.socket, other: socket.socket) -> None:
        how = socket.SHUT_RDWR
        with contextlib.suppress(OSError):
            while piece := await self._loop.sock_recv(one, PIECE):
                await self._loop.sock_sendall(other, piece)
            how = socket.SHUT_WR  # the way back is still open: the answer may come now
        with contextlib.suppress(OSError):
            other.shutdown(how)
