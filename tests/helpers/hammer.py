"""Clients that connect without a pause, and a server that says which queue answered."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One connection: when it began and ended, and the number of the queue that took it."""

    began: float
    ended: float
    queue: int


class Hammer:
    """Connect to `address` from threads until the block ends; `failures` counts what went wrong."""

    def __init__(self, family: int, address: tuple[str, int], *, threads: int = 2) -> None:
        self.answers: list[Answer] = []
        self.failures: Counter[str] = Counter()
        self._family, self._address = family, address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Return when `more` further connections were answered."""
        wanted = len(self.answers) + more
        deadline = time.monotonic() + 30
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, (len(self.answers), self.failures)
            time.sleep(0.001)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                queue = ask(self._family, self._address)
            except OSError as error:
                self.failures[type(error).__name__] += 1
            else:
                self.answers.append(Answer(began, time.monotonic(), queue))


def ask(family: int, address: tuple[str, int]) -> int:
    """Connect and return the number of the queue that answers."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        # No TIME_WAIT, or the ports would run out.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.connect(address)
        data = sock.recv(1)
        if not data:
            raise ConnectionAbortedError("closed without an answer")
        return data[0]


class Server:
    """Accept from duplicates of queues, as workers do, and answer with the queue's number."""

    def __init__(self, queues: Sequence[socket.socket] = ()) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, -1)
        self._socks: list[socket.socket] = []
        self._new: list[tuple[socket.socket, int]] = []
        for number, queue in enumerate(queues):
            self.add(queue, number)
        self._thread = threading.Thread(target=self._run)

    def add(self, queue: socket.socket, number: int) -> None:
        """Accept from this queue, too."""
        copy = queue.dup()
        copy.setblocking(False)
        self._socks.append(copy)
        self._new.append((copy, number))
        self._wake.send(b"+")

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b".")
        self._thread.join()
        self._selector.close()
        for sock in (*self._socks, self._wake, self._woken):
            sock.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data == -1:
                    if b"." in self._woken.recv(100):
                        return
                    while self._new:
                        sock, number = self._new.pop()
                        self._selector.register(sock, selectors.EVENT_READ, number)
                    continue
                assert isinstance(key.fileobj, socket.socket)
                try:
                    connection, _ = key.fileobj.accept()
                except OSError:
                    continue
                with connection:
                    connection.send(bytes([key.data]))
