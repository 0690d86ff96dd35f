"""A worker that takes the connections it is passed: `passed.py [SECONDS]` answers so late.

Its answers are those of the examples: pid, and the version in version.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from sockmgr.worker.connections import Connection, Connections

sys.path.insert(0, os.getcwd())  # noqa: PTH109
from version import VERSION  # type: ignore[import-not-found]


async def answer(connection: Connection) -> None:
    """Read one request and answer it."""
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        if line[1].startswith(b"/slow"):
            await asyncio.sleep(float(line[1].partition(b"s=")[2] or 1))
        body = json.dumps({"pid": os.getpid(), "version": VERSION}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # a client that hung up
    finally:
        writer.close()


async def main() -> None:
    """Serve until TERM."""
    connections = Connections.inherited()
    assert connections
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, connections.stop)
    await connections.serve(answer)


asyncio.run(main())
