"""A worker of trivial work: read a time, answer how long ago it was when it got the connection.

`worker.py FD` accepts from a shared listener; with SOCKMGR_DISPATCH_FD it takes what is passed.
On TERM it prints its pid and how many connections it had, and ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import time

from sockmgr.worker.connections import Connections

_TIME = struct.Struct("=Q")
AT_ONCE = 100  # as many as asyncio's own servers accept in a turn by default


class Worker:
    """One event loop, one callback for each connection."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.served = 0

    def take(self, connection: socket.socket) -> None:
        """Answer it when its time has come in."""
        self.served += 1
        self.loop.add_reader(connection, self._answer, connection, time.monotonic_ns())

    def _answer(self, connection: socket.socket, taken_at: int) -> None:
        self.loop.remove_reader(connection)
        with connection:
            data = connection.recv(_TIME.size)
            if len(data) == _TIME.size:
                connection.send(_TIME.pack(max(0, taken_at - _TIME.unpack(data)[0])))


def _accept(listener: socket.socket, worker: Worker) -> None:
    for _ in range(AT_ONCE):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        worker.take(connection)


async def main() -> None:
    """Serve until TERM."""
    worker, over = Worker(), asyncio.Event()
    worker.loop.add_signal_handler(signal.SIGTERM, over.set)
    if connections := Connections.inherited():
        connections.start(worker.take)
    else:
        listener = socket.socket(fileno=int(sys.argv[1]))
        listener.setblocking(False)
        worker.loop.add_reader(listener, _accept, listener, worker)
        print("ready", flush=True)
    await over.wait()
    print(os.getpid(), worker.served)


if __name__ == "__main__":
    asyncio.run(main())
