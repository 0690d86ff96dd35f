"""A connection of this process with itself, to pass one end of it to a worker. Keeps nothing."""

from __future__ import annotations

import asyncio
import socket

from sockmgr.kernel.closing import closed_on_error


async def connected_pair(like: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection, ours first, as a client of `like` would make one.

    They are the caller's, and do not block. Those of TCP have loopback addresses, of `like`'s
    family. Where packets to this host itself are dropped it takes for ever. Raises OSError.
    """
    if like.family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        return ours, theirs
    # A host may have no IPv6 on its loopback interface, and IPv4 is there for either family.
    host = "127.0.0.1" if like.family == socket.AF_INET else "::ffff:127.0.0.1"
    with socket.socket(like.family) as listener:
        listener.setblocking(False)
        listener.bind((host, 0))
        listener.listen()
        ours = socket.socket(like.family)
        with closed_on_error(ours):
            ours.setblocking(False)
            return ours, await _connected(ours, listener)


async def _connected(ours: socket.socket, listener: socket.socket) -> socket.socket:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(ours, listener.getsockname())
    while True:
        theirs, peer = await loop.sock_accept(listener)
        if peer == ours.getsockname():
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return theirs
        theirs.close()  # any process of this host may connect to any port of it
