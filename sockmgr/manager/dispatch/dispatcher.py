"""Accept connections and pass each to a worker, on the manager's event loop.

A connection is ours only between accept(2) and sendmsg(2), in one call of one function, at most
BATCH at a time. When all workers are full nothing is accepted: the rest waits in the kernel.
Owns the channels of the workers; borrows the listeners. Which workers are fed, and what is done
about a worker that misbehaves, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sockmgr.api.records import EventKind
from sockmgr.log import Log
from sockmgr.manager.dispatch.acceptor import accept
from sockmgr.manager.dispatch.backoff import SHORT, Backoff
from sockmgr.manager.dispatch.channel import BATCH, MAX_LISTENERS, Channel, close_all
from sockmgr.manager.dispatch.ledger import Forged, Ledger
from sockmgr.manager.dispatch.link import Link
from sockmgr.manager.dispatch.scheduler import Scheduler
from sockmgr.manager.dispatch.untaken import Remedies, Untaken

MAX_UNTAKEN = 64  # of one worker; it gets no more before it has taken them all

_log = Log("sockmgr.dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Durations, in seconds."""

    take: float = 2.0  # a worker that takes nothing that long gives back what waits for it ...
    replace: float = 60.0  # ... and is to be replaced after this
    rest: float = 0.05  # before the next try when files or memory ran out; doubled ...
    longest_rest: float = 1.0  # ... up to this


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Callbacks of the dispatcher, never called from within one of its own methods."""

    takes: Callable[[int], None]  # the worker of this lease takes connections, for the first time
    misbehaves: Callable[[int, str], None]  # replace the worker of this lease, for this reason


class Dispatcher:
    """Passes connections from all listeners of one service to its workers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scheduler: Scheduler,
        events: Events,
        timing: Timing | None = None,
    ) -> None:
        """Begin with no listener and no worker."""
        self._loop, self._scheduler, self._events = loop, scheduler, events
        timing = timing or Timing()
        self.accepted = 0  # connections, ever
        self._sources: dict[socket.socket, str] = {}
        self._waiting: dict[socket.socket, None] = {}  # listeners no worker has room for, in turn
        self._links: dict[int, Link] = {}
        self._givers: dict[Link, None] = {}  # their waiting connections go to others
        self._weights: Mapping[int, int] = {}
        self._keys: Mapping[int, Collection[str]] | None = None
        self._among: dict[str, list[int]] = {}  # the fed leases of each listener
        self._held: dict[str, list[int]] = {}  # accepted while no worker has room: seldom any
        remedies = Remedies(
            ask=self._ask, bypass=self._bypass, replace=events.misbehaves, looked=self._go
        )
        self._untaken = Untaken(loop, self._links, timing.take, timing.replace, remedies)
        self._backoff = Backoff(loop, self._go, timing.rest, timing.longest_rest)

    # --- What is configured ----------------------------------------------------------------------

    def listen(self, listeners: Mapping[socket.socket, str]) -> None:
        """Accept from these sockets only, which are borrowed and made non-blocking.

        The key of each socket is the caller's name for its listener; several sockets may be
        queues of one listener. Call this before one of the sockets is closed.
        """
        for sock in [sock for sock in self._sources if sock not in listeners]:
            self._pause(sock)
            del self._waiting[sock], self._sources[sock]
        for sock, key in listeners.items():
            if sock not in self._sources:
                self._waiting[sock] = None
            self._sources[sock] = key
        self._go()

    def attach(self, lease: int, name: str, channel: Channel, keys: Sequence[str]) -> None:
        """Own the channel of a worker, new or adopted, that serves the listeners `keys`.

        The worker gets no connection before it has answered our first question (Events.takes).
        """
        if len(keys) > MAX_LISTENERS:
            raise ValueError(f"a worker can serve {MAX_LISTENERS} listeners, not {len(keys)}")
        ledger = Ledger(time.monotonic_ns(), is_new=channel.is_new)
        link = Link(lease=lease, name=name, channel=channel, ledger=ledger, keys=keys)
        self._links[lease] = link
        self._scheduler.add(lease)
        self._find_among()
        self._loop.add_reader(channel, self._hear, link)
        self._ask(link)

    def detach(self, lease: int) -> None:
        """Forget a worker that is gone; connections that it had not taken are passed to others."""
        link = self._links.pop(lease)
        link.gone = True
        self._deafen(link)
        self._givers[link] = None
        self._scheduler.forget(lease)
        self._find_among()
        self._untaken.settle(lease)
        self._go()

    def abandon(self, lease: int) -> None:
        """Pass nothing more to a worker that has begun to leave; others get what waits for it."""
        link = self._links[lease]
        link.leaving = True
        self._scheduler.hold(lease)
        self._givers[link] = None
        self._go()

    def feed(
        self, weights: Mapping[int, int], keys: Mapping[int, Collection[str]] | None = None
    ) -> None:
        """Give new connections to these leases only; with none, they wait in the kernel.

        `keys` are the listeners from which each lease is fed; None means all that it serves.
        """
        self._weights, self._keys = dict(weights), keys
        self._find_among()
        self._untaken.mind()
        self._go()

    def quiet(self, lease: int) -> asyncio.Future[None]:
        """Return a future that is done when an unfed worker has nothing waiting, or is gone."""
        return self._untaken.quiet(lease)

    def close(self) -> None:
        """Accept no more and close the channels: copies of them in other hands live on."""
        self.listen({})
        for link in {*self._links.values(), *self._givers}:
            self._deafen(link)
            link.channel.close()
        self._links.clear()
        self._givers.clear()
        self._backoff.close()
        if self._held:
            _log.error("connections lost", count=self.held, why="nobody could take them")
            for fds in self._held.values():
                close_all(fds)
            self._held.clear()
        self._untaken.close()

    # --- What it tells ---------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many connections are accepted and not passed on: a kill -9 now would lose them."""
        return sum(map(len, self._held.values()))

    def open(self, lease: int) -> int:
        """Return how many connections a worker has, including those that it has still to take."""
        return self._scheduler.open(lease)

    # --- From listeners to workers ---------------------------------------------------------------

    def _go(self) -> None:
        """Pass on all connections that can be passed on now, the oldest first."""
        if not self._backoff.resting:
            for key in list(self._held):
                self._pass(key, self._held.pop(key))
            if self._givers:
                self._pull()
            for listener in list(self._waiting):
                self._accept(listener)

    def _find_among(self) -> None:
        self._scheduler.feed(self._weights)
        self._among = {}
        for lease, link in self._links.items():
            if self._scheduler.is_fed(lease):
                mine = link.keys if self._keys is None else self._keys.get(lease, ())
                for key in link.numbers.keys() & mine:
                    self._among.setdefault(key, []).append(lease)

    def _accept(self, listener: socket.socket) -> None:
        key = self._sources[listener]
        room = self._room(key, BATCH)
        if not room:
            if listener not in self._waiting:
                self._pause(listener)
            return
        # Another process that holds this socket can make it block, and we must never wait.
        os.set_blocking(listener.fileno(), False)
        accepted = accept(listener, room)
        self.accepted += len(accepted.fds)
        self._pass(key, accepted.fds)
        if accepted.error:
            self._backoff.rest("accept", accepted.error)
        elif accepted.fds and key not in self._held:
            self._backoff.succeeded()
        if not self._room(key, 1):
            self._pause(listener)
        elif listener in self._waiting:
            del self._waiting[listener]
            self._loop.add_reader(listener, self._accept, listener)

    def _pause(self, listener: socket.socket) -> None:
        if listener not in self._waiting:
            self._loop.remove_reader(listener)
        # To the end: the listener served last waits longest when there is room for one.
        self._waiting.pop(listener, None)
        self._waiting[listener] = None

    def _room(self, key: str, limit: int) -> int:
        """Return how many more can be passed on now: 0 while we hold older connections of `key`."""
        if key in self._held or self._backoff.resting:
            return 0
        return self._scheduler.room(self._among.get(key, ()), limit)

    def _pass(self, key: str, fds: Sequence[int]) -> None:
        parcels: dict[int, list[int]] = {}
        among = self._among.get(key, ())
        for fd in fds:
            lease = self._scheduler.choose(among)
            if lease is None:
                self._held.setdefault(key, []).append(fd)
            else:
                parcels.setdefault(lease, []).append(fd)
        sent = [self._send(self._links[lease], key, parcel) for lease, parcel in parcels.items()]
        if not all(sent) and not self._backoff.resting:
            # A worker that failed has no room any more, so the recursion ends.
            self._pass(key, self._held.pop(key))

    def _send(self, link: Link, key: str, fds: Sequence[int]) -> bool:
        try:
            link.channel.send(fds, bytes([link.numbers[key]]) * len(fds))
        except OSError as error:
            self._scheduler.ended(link.lease, len(fds))
            self._held.setdefault(key, []).extend(fds)
            self._not_sent(link, error)
            return False
        close_all(fds)
        link.ledger.passed += len(fds)
        link.unseen += len(fds)
        if link.unseen >= MAX_UNTAKEN:
            link.unseen = link.waiting
            if link.unseen >= MAX_UNTAKEN:
                self._ask(link)
        self._untaken.mind()
        return True

    def _not_sent(self, link: Link, error: OSError) -> None:
        if isinstance(error, BlockingIOError):  # little memory for sockets, or one message too many
            self._scheduler.hold(link.lease)
            self._loop.add_writer(link.channel, self._writable, link)
        elif error.errno in SHORT:
            self._backoff.rest("pass on", error)
        else:
            self._distrust(link, _broke(error))

    def _pull(self) -> None:
        """Pass to others the connections that wait for workers that are gone or do not take."""
        # A copy: to pass a connection on may show that another channel is broken.
        for link in list(self._givers):
            if not self._is_emptied(link):
                continue
            if link.gone:
                self._givers.pop(link, None)
                link.channel.close()
            else:
                self._untaken.settle(link.lease)

    def _is_emptied(self, link: Link) -> bool:
        while link.waiting:
            if not any(self._room(key, 1) for key in link.keys):
                return False
            back = link.channel.take_back() or ()
            if link.ledger.known and not link.gone:
                link.ledger.passed -= len(back)
                self._scheduler.ended(link.lease, len(back))
            for each in back:
                self._pass(link.keys[each.listener], [each.fd])
        try:
            link.ask_again()
        except OSError as error:
            self._distrust(link, _broke(error))
        return True

    def _bypass(self, link: Link) -> None:
        self._givers[link] = None
        self._ask(link)

    # --- What workers say and do -----------------------------------------------------------------

    def _ask(self, link: Link) -> None:
        self._scheduler.hold(link.lease)
        try:
            link.ask()
        except BlockingIOError:
            self._loop.add_writer(link.channel, self._writable, link)
        except OSError as error:
            self._distrust(link, _broke(error))

    def _writable(self, link: Link) -> None:
        self._loop.remove_writer(link.channel)
        if not link.ledger.known or self._untaken.is_awaited(link.lease):
            self._ask(link)
        elif not link.ledger.asked:
            self._release(link)
        self._go()

    def _hear(self, link: Link) -> None:
        ledger = link.ledger
        asked, known, lost = ledger.asked, ledger.known, ledger.lost
        try:
            report = link.channel.receive()
            if report is None:
                return
            self._scheduler.found(link.lease, ledger.hear(report))
        except Forged as error:
            self._distrust(link, str(error))
            return
        if ledger.lost != lost:
            _log.error(EventKind.WORKER_LOST_CONNECTIONS, worker=link.name,
                       count=ledger.lost - lost, why="it could open no more files",
                       do="raise its limit")  # fmt: skip
        if asked and not ledger.asked:
            self._answered(link)
        if ledger.known and not known:
            self._loop.call_soon(self._events.takes, link.lease)
        self._go()

    def _release(self, link: Link) -> None:
        if not link.leaving:
            self._scheduler.release(link.lease)

    def _answered(self, link: Link) -> None:
        self._release(link)
        link.unseen = 0
        if link.silent_at:
            link.silent_at, link.given_up = 0.0, False
            if not link.leaving:
                del self._givers[link]
                _log.info("worker takes connections again", worker=link.name)
        self._untaken.settle(link.lease)

    def _distrust(self, link: Link, why: str) -> None:
        if link.broken:
            return
        link.broken = True
        self._deafen(link)
        self._givers[link] = None
        self._scheduler.hold(link.lease)
        _log.error(EventKind.WORKER_MISBEHAVES, worker=link.name, why=why,
                   means="it gets no more connections")  # fmt: skip
        self._loop.call_soon(self._events.misbehaves, link.lease, why)
        self._loop.call_soon(self._go)

    def _deafen(self, link: Link) -> None:
        self._loop.remove_reader(link.channel)
        self._loop.remove_writer(link.channel)


def _broke(error: OSError) -> str:
    return f"its channel broke: {(error.strerror or '').lower()}"
