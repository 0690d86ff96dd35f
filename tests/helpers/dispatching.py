"""A dispatcher on a stage: its listener, its clients, and workers that a test plays by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sockmgr.config.spec import Policy
from sockmgr.manager.dispatch.dispatcher import Dispatcher as DispatcherOfManager
from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.dispatcher import Dispatcher
from sockmgr.programs.dispatcher.events import Events, Timing
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.scheduler import Scheduler
from sockmgr.worker.connections import Connection, Connections
from tests.helpers.children import PATIENCE

# A deadline that is not meant to come in a test is far away, on a loaded machine, too.
SLOW = Timing(take=1000, replace=1000, rest=0.01, longest_rest=0.02)


async def until(fact: Callable[[], object], *, what: str) -> None:
    """Let the event loop run until `fact` is true."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not fact():  # noqa: ASYNC110 - facts of other processes have no event
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"never came true: {what}") from None


def a_dispatcher() -> DispatcherOfManager:
    """Return that of a manager whose descriptors nobody keeps."""
    return DispatcherOfManager(lambda: None, {}, is_last=True, is_upgrade=False)


class Worker:
    """The worker's end of a channel. It does what the test calls, and nothing by itself."""

    def __init__(self, channel: Channel, names: Sequence[str]) -> None:
        self.connections = Connections(os.dup(channel.theirs), names)
        self.taken: list[Connection] = []

    def take(self) -> list[Connection]:
        """Take all that is there, and answer questions."""
        fresh: list[Connection] = []
        while batch := self.connections.take():
            fresh += batch
        self.taken += fresh
        return fresh

    def has(self, count: int) -> bool:
        """Take all that is there, and tell whether so many are open now."""
        self.take()
        return len(self.taken) == count

    def end(self, count: int) -> None:
        """Close the oldest connections that were taken."""
        for connection in self.taken[:count]:
            connection.close()
        del self.taken[:count]

    def close(self) -> None:
        self.end(len(self.taken))
        self.connections.close()


class Stage:
    """One dispatcher. Workers that take connections are fed, unless the test feeds otherwise."""

    def __init__(
        self,
        listeners: Mapping[str, socket.socket],
        *,
        policy: Policy = Policy.ROUND_ROBIN,
        most: int | None = None,
        timing: Timing = SLOW,
    ) -> None:
        self.listeners = listeners
        self.took: set[int] = set()
        self.misbehaved: dict[int, str] = {}
        self.quiet: set[int] = set()
        self.emptied: list[int] = []
        self.said: list[str] = []
        self.workers: dict[int, Worker] = {}
        self.channels: dict[int, Channel] = {}
        self.keys: dict[int, Sequence[str]] = {}
        self.clients: list[socket.socket] = []
        self.feeds = True
        self.loop = Loop()
        events = Events(
            takes=self._takes, misbehaves=self.misbehaved.__setitem__, quiet=self.quiet.add,
            emptied=self.emptied.append, say=self._say,
        )  # fmt: skip
        self.dispatcher = Dispatcher(self.loop, Scheduler(policy, most), events, timing)
        self.dispatcher.listen({sock: key for key, sock in listeners.items()})

    def until(self, fact: Callable[[], object], *, what: str) -> None:
        """Let the loop turn until `fact` is true."""
        end = time.monotonic() + PATIENCE
        while not fact():
            assert time.monotonic() < end, f"never came true: {what}"
            self.loop.turn(0.001)

    def turn_for(self, seconds: float) -> int:
        """Let the loop turn for so long; return how often something woke it up."""
        end, idle, before = time.monotonic() + seconds, 0, self.loop.turns
        while (left := end - time.monotonic()) > 0:
            self.loop.turn(left)
            idle += time.monotonic() >= end  # this sleep, and nothing else, woke it up
        return self.loop.turns - before - idle

    def _takes(self, lease: int, _: int) -> None:
        self.took.add(lease)
        if self.feeds:
            self.feed(dict.fromkeys(self.took, 1))

    def feed(self, weights: Mapping[int, int]) -> None:
        """Feed these leases, each from all listeners that its worker serves."""
        self.dispatcher.feed(weights, {lease: self.keys.get(lease, ("http",)) for lease in weights})

    def _say(self, level: str, kind: str, /, **fields: object) -> None:
        del level
        self.said.append(" ".join([kind, *(f"{name}={each}" for name, each in fields.items())]))

    def join(self, lease: int, keys: Sequence[str] = ("http",)) -> Worker:
        """Attach a worker that has not yet answered."""
        channel = Channel.create()
        worker = self.workers[lease] = Worker(channel, keys)
        self.channels[lease], self.keys[lease] = channel, keys
        self.dispatcher.attach(lease, f"web@1.{lease}", channel, keys)
        return worker

    def ready(self, lease: int, keys: Sequence[str] = ("http",)) -> Worker:
        """Attach a worker, and return it when it is fed."""
        worker = self.join(lease, keys)
        worker.take()
        self.until(lambda: lease in self.took, what=f"worker {lease} takes connections")
        return worker

    def connect(self, count: int = 1, key: str = "http") -> list[socket.socket]:
        """Return so many new clients, which are connected."""
        listener = self.listeners[key]
        fresh = []
        for _ in range(count):
            client = socket.socket(listener.family)
            client.settimeout(PATIENCE)
            client.connect(listener.getsockname())
            fresh.append(client)
        self.clients += fresh
        return fresh

    def passed(self, count: int, leases: Sequence[int] | None = None) -> None:
        """Wait until so many connections are open in these workers, taken or not."""
        among = self.workers.keys() if leases is None else leases

        def found() -> int:
            return sum(self.dispatcher.open(lease) for lease in among)

        self.until(lambda: found() == count, what=f"{count} connections passed")

    def close(self) -> None:
        self.dispatcher.close()
        for worker in self.workers.values():
            worker.close()
        for client in self.clients:
            client.close()
        self.loop.close()


@contextlib.contextmanager
def listening(backlog: int = 4096) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener


@contextlib.contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        yield listener


@contextlib.contextmanager
def stage(**more: Any) -> Iterator[Stage]:
    """A stage with one TCP listener, "http"."""
    with listening() as listener, contextlib.closing(Stage({"http": listener}, **more)) as staged:
        yield staged


def is_served(worker: Connection, client: socket.socket) -> bool:
    """Tell whether what a worker writes reaches this client."""
    return worker.getpeername() == client.getsockname()
