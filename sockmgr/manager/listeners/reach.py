"""Connections of our own to one queue of a listener, while all others go where they went.

Borrows the sockets of the listener; owns nothing between calls.
"""

from __future__ import annotations

import asyncio
import socket

from sockmgr.errors import ListenError
from sockmgr.kernel import free_bind
from sockmgr.kernel.closing import closed_on_error
from sockmgr.kernel.steering.calling import Way, has_come, listens_at
from sockmgr.kernel.steering.flow import Flow
from sockmgr.kernel.steering.pool import Pool
from sockmgr.manager.listeners.held import HeldSockets

AT_ONCE = 16  # flows that one program compares: classic BPF has room for few
ARRIVAL_TIMEOUT = 1.0  # seconds; a packet from this host to this host takes microseconds
LOOK_DELAY = 0.001


class Reach:
    """Makes them for one listener, a few at a time."""

    def __init__(self, held: HeldSockets) -> None:
        self._held = held
        self._places = asyncio.Semaphore(AT_ONCE)

    async def connect(self, pool: Pool, lease: int) -> socket.socket:
        """Return a socket, the caller's, that is connected to the queue of `lease`, fed or not.

        It waits where that queue is full, so the caller has a deadline. Raises ListenError if it
        cannot be, and OSError if the connection fails.
        """
        queue = self._held.queue(lease)
        way = Way.to(queue)
        async with self._places:
            if free_bind.is_absent(queue):
                raise _unreachable(way, "this host does not have the address")
            try:
                sock = way.bound()
            except OSError as error:
                raise _unreachable(way, (error.strerror or "").lower()) from error
            with closed_on_error(sock):
                self._check(sock, way)
                await self._connect(pool, lease, sock, way)
        return sock

    async def _connect(self, pool: Pool, lease: int, sock: socket.socket, way: Way) -> None:
        # The exception ends before anybody else can have the address and the port of the socket.
        with pool.exception(Flow.of(sock, way.target[0]), lease):
            await asyncio.get_running_loop().sock_connect(sock, way.target)
            try:
                async with asyncio.timeout(ARRIVAL_TIMEOUT):
                    while not has_come(sock, way):  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(LOOK_DELAY)
            except TimeoutError as error:
                raise _unreachable(way, "something on this host sends it elsewhere") from error

    def _check(self, sock: socket.socket, way: Way) -> None:
        """See that the address leads to this listener: another one may have a part of it."""
        inode = listens_at(sock, way)
        if inode and inode not in self._held.inodes:
            raise _unreachable(way, "another socket listens there")


def _unreachable(way: Way, why: str) -> ListenError:
    host, port = way.target[:2]
    return ListenError(f"cannot connect from {way.source} to {host}, port {port}: {why}")
