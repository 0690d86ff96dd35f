"""A connection that the kernel has no memory for ends like one that its client has left."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from sockmgr.manager.control.connection import ControlConnection, Dropped, Limits


def test_a_connection_that_fails_is_dropped_whatever_is_done_with_it() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            connection = ControlConnection(ours, Limits())
            await connection.open()
            # What the event loop does when send(2) or recv(2) fails.
            error = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            connection._line.connection_lost(error)
            for use in (connection.receive(), connection.send(b"{}\0"), connection.stream(b"{}\0")):
                with pytest.raises(Dropped, match="No buffer space available"):
                    await use
            connection.hang_up()
            await asyncio.sleep(0)
            connection.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))
