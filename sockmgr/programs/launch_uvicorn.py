"""Run uvicorn on a socket that others accept from as well: `launch_uvicorn.py ARGUMENTS`.

Told to stop, uvicorn closes each connection from which it has not read a request yet. The queue of
a unix socket cannot be taken from it first, so some have come just then: here it accepts no more,
and has read them, before it does so.
It runs by path in uvicorn's own interpreter, where sockmgr need not be installed, so it imports
nothing of sockmgr.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from importlib import import_module
from typing import Any

LINGER, LOOK = 2.0, 0.05  # seconds: that a client may take to its request; between two looks


def serve() -> None:
    """Run uvicorn's command line with a server that reads on when it has ceased to accept."""
    # Not at the top, as children that multiprocessing spawns import this module as well.
    command, server_class = import_module("uvicorn").main, import_module("uvicorn.server").Server
    shutdown = server_class.shutdown

    async def read_first(server: Any, *sockets: Any, **named: Any) -> None:
        # A version that lacks one of these stops as it would without us.
        with contextlib.suppress(AttributeError):
            for each in server.servers:
                each.close()
            left = LINGER
            while left > 0:
                await asyncio.sleep(LOOK)
                left -= LOOK
                # HTTP/1.1 has no cycle before its first request; a WebSocket has none at all.
                open_now = server.server_state.connections
                if all(getattr(each, "cycle", each) is not None for each in open_now):
                    break
        await shutdown(server, *sockets, **named)

    server_class.shutdown = read_first
    command()


if __name__ == "__main__":
    # Without -I, -P and PYTHONSAFEPATH, sys.path begins with the directory of this file, from which
    # an application must not import.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]
    sys.argv[0] = "uvicorn"
    serve()
