"""Accept connections of one service and pass each to a worker.

A connection is ours only between accept(2) and sendmsg(2), in one call of one function, at most
BATCH at a time. When all workers are full nothing is accepted: the rest waits in the kernel.
Owns the channels of the workers; borrows the listeners. Which workers are fed, and what is done
about a worker that misbehaves, is decided elsewhere.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from sockmgr.kernel.rights import close_all
from sockmgr.programs.dispatcher.backoff import SHORT, Backoff
from sockmgr.programs.dispatcher.channel import MAX_LISTENERS, Channel
from sockmgr.programs.dispatcher.events import USUAL, Events, Timing
from sockmgr.programs.dispatcher.ledger import Forged, Ledger
from sockmgr.programs.dispatcher.link import Link, broke
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.messages import LOST, MISBEHAVES
from sockmgr.programs.dispatcher.moves import MoveQueues, Told
from sockmgr.programs.dispatcher.scheduler import Scheduler
from sockmgr.programs.dispatcher.sources import Sources
from sockmgr.programs.dispatcher.untaken import Remedies, Untaken


class Dispatcher:
    def __init__(
        self, loop: Loop, scheduler: Scheduler, events: Events, timing: Timing = USUAL
    ) -> None:
        self._loop, self._scheduler, self._events, self._say = loop, scheduler, events, events.say
        self.accepted = 0  # connections, ever
        self.sources, self._told = Sources(loop, self.room, self._take), Told()
        self.queues = MoveQueues(loop, self, self._told, events.say)
        self._links: dict[int, Link] = {}
        self.leases: Collection[int] = self._links.keys()
        self._by_id: dict[int, Link] = {}  # those that are gone as well
        self._givers: dict[Link, None] = {}  # their waiting connections go to others
        self._weights: Mapping[int, int] = {}
        self._keys: Mapping[int, Collection[str]] = {}
        self.meant: Collection[str] | None = None  # all listeners that a worker has, or will have
        self._among: dict[str, list[int]] = {}  # the fed leases of each listener
        self._held: dict[str, list[int]] = {}  # accepted while no worker has room: seldom any
        remedies = Remedies(
            ask=self._ask, bypass=self._bypass, replace=partial(self._tell, events.misbehaves),
            looked=self._go, quiet=partial(self._tell, events.quiet), say=events.say,
        )  # fmt: skip
        self.untaken = Untaken(loop, self._links, timing, remedies)
        self._backoff = Backoff(loop, events.say, self._go, timing.rest, timing.longest_rest)

    # --- What is configured ----------------------------------------------------------------------

    def configure(self, policy: str, max_connections: int | None) -> None:
        """Choose by these from now on: workers may have room for those who wait."""
        self._scheduler.configure(policy, max_connections)
        self._go()

    def listen(self, listeners: Mapping[socket.socket, str]) -> None:
        """Accept from these sockets only, which are borrowed and made non-blocking.

        The key of each socket is the caller's name for its listener; several sockets may be
        queues of one listener. Call this before one of the sockets is closed.
        """
        self.sources.listen(listeners)
        self._go()

    def attach(self, lease: int, name: str, channel: Channel, keys: Sequence[str]) -> None:
        """Own the channel of a worker, new or adopted, that serves the listeners `keys`.

        The worker gets no connection before it has answered our first question (Events.takes). One
        that has this channel already goes on as it was, and `channel` is closed.
        """
        if len(keys) > MAX_LISTENERS:
            raise ValueError(f"a worker can serve {MAX_LISTENERS} listeners, not {len(keys)}")
        if (known := self._links.get(lease)) and known.id == channel.id:
            channel.close()
            known.name = name
            if known.ledger.known:
                self._tell(self._events.takes, lease, known.id)
            if known.broken:
                self._tell(self._events.misbehaves, lease, known.broken)
            return
        self._forget(channel.id)
        self.detach(lease)
        ledger = Ledger(time.monotonic_ns(), is_new=channel.is_new)
        link = Link(lease, name, channel, ledger, keys)
        self._links[lease] = self._by_id[link.id] = link
        self._scheduler.add(lease, self._weights.get(lease, 0))
        self._join(link)
        self._loop.add_reader(channel, partial(self._hear, link))
        self._ask(link)

    def inherit(self, channel: Channel, keys: Sequence[str]) -> None:
        """Own the channel of a worker that is gone: what it had not taken goes to others."""
        if known := self._by_id.get(channel.id):
            channel.close()
            if not known.gone:
                self.detach(known.lease)
            return
        link = self._by_id[channel.id] = Link(-1, "", channel, Ledger(0), keys)
        link.gone = True
        self._givers[link] = None
        self._go()

    def detach(self, lease: int) -> None:
        """Forget a worker that is gone; connections that it had not taken are passed to others."""
        if (link := self._links.pop(lease, None)) is None:
            return
        link.gone = True
        self._deafen(link)
        self._givers[link] = None
        self._part(link)
        self.untaken.settle(lease)
        self._go()

    def abandon(self, lease: int) -> None:
        """Pass nothing more to a worker that has begun to leave; others get what waits for it."""
        if (link := self._links.get(lease)) is None:
            return
        link.leaving = True
        self._scheduler.hold(lease)
        self._givers[link] = None
        self._go()

    def feed(self, weights: Mapping[int, int], keys: Mapping[int, Collection[str]]) -> None:
        """Give new connections to these leases only; with none, they wait in the kernel.

        `keys` are the listeners from which each lease is fed.
        """
        self._weights, self._keys = dict(weights), keys
        self._scheduler.feed(self._weights)
        self._among = {}
        for link in self._links.values():
            self._join(link)
        self.untaken.mind()
        self._go()

    def quiet(self, lease: int) -> None:
        """Tell by Events.quiet when an unfed worker has nothing waiting, or is gone."""
        self.untaken.quiet(lease)

    def take_over(self, key: str, fds: Sequence[int]) -> None:
        """Own connections from the listener `key` that another dispatcher could not pass on."""
        self._held.setdefault(key, []).extend(fds)
        self._go()

    def give(self, lease: int, key: str, fds: Sequence[int]) -> None:
        """Own connections for this worker alone, fed or not; close those that it cannot get."""
        link = self._links.get(lease)
        if link and (given := sum(link.give(key, fd) for fd in fds)):
            self._scheduler.found(lease, given)
            self.untaken.mind()
        close_all(fds)

    def give_up(self) -> Mapping[str, list[int]]:
        """Rest until go_on(); return the connections that we hold by listener, to be owned."""
        self._go()
        self.listen({})
        for link in self._links.values():
            self._deafen(link)
        self._backoff.close()
        self.untaken.close()
        self.queues.rest()
        held, self._held = self._held, {}
        return held

    def go_on(self, listeners: Mapping[socket.socket, str]) -> None:
        """Accept and hear again after give_up()."""
        for link in self._links.values():
            if not link.broken:
                self._loop.add_reader(link.channel, partial(self._hear, link))
        self.untaken.mind()
        self.listen(listeners)

    def close(self) -> None:
        """Accept no more and close the channels: copies of them in other hands live on."""
        held = self.give_up()
        self.queues.close()
        for link in self._by_id.values():
            link.channel.close()
        self._links.clear()
        self._by_id.clear()
        self._givers.clear()
        for key, fds in held.items():
            self._lose(key, fds, "nobody could take them")

    # --- What it tells ---------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many connections are accepted and not passed on: a kill -9 now would lose them."""
        return sum(map(len, self._held.values()))

    def open(self, lease: int) -> int:
        """Return how many connections a worker has, including those that it has still to take."""
        return self._scheduler.open(lease)

    def _tell(self, event: Callable[..., object], *about: object) -> None:
        self._loop.call_soon(partial(event, *about))  # when what happens now is over

    # --- From listeners to workers ---------------------------------------------------------------

    def _go(self) -> None:
        """Pass on all connections that can be passed on now, the oldest first."""
        if not self._backoff.resting:
            for key in list(self._held):
                self.pass_on(key, self._held.pop(key))
            if self._givers:
                self._pull()
            self.sources.go()
            self.queues.go()

    def _join(self, link: Link) -> None:
        if self._scheduler.is_fed(link.lease):
            for key in link.numbers.keys() & self._keys[link.lease]:
                self._among.setdefault(key, []).append(link.lease)

    def _part(self, link: Link) -> None:
        self._scheduler.forget(link.lease)
        for key in link.keys:
            if link.lease in self._among.get(key, ()):
                self._among[key].remove(link.lease)

    def _take(self, key: str, fds: Sequence[int], error: OSError | None) -> None:
        self.accepted += len(fds)
        self.pass_on(key, fds)
        if error:
            self._backoff.rest("accept", error)
        elif fds and key not in self._held:
            self._backoff.succeeded()

    def room(self, key: str, limit: int) -> int:
        """Return how many more can be passed on now: 0 while we hold older connections of `key`."""
        if key in self._held or self._backoff.resting:
            return 0
        return self._scheduler.room(self._among.get(key, ()), limit)

    def pass_on(self, key: str, fds: Sequence[int]) -> None:
        """Own connections from a listener, and pass each to a worker that has room."""
        parcels: dict[tuple[int, int], list[int]] = {}
        among = self._among.get(key, ())
        for fd in fds:
            lease = self._scheduler.choose(among)
            if lease is None and self._is_removed(key):
                self._lose(key, [fd], "its listener and the worker that had it are gone")
            elif lease is None:
                self._held.setdefault(key, []).append(fd)
            else:
                parcels.setdefault((lease, fd if fd in self._told else -1), []).append(fd)
        sent = [self._send(self._links[to], key, parcel) for (to, _), parcel in parcels.items()]
        if not all(sent) and not self._backoff.resting:
            # A worker that failed has no room any more, so the recursion ends.
            self.pass_on(key, self._held.pop(key))

    def _is_removed(self, key: str) -> bool:
        return self.meant is not None and key not in self.meant

    def _lose(self, key: str, fds: Sequence[int], why: str) -> None:
        self._say("error", "connections lost", count=len(fds), listener=key, why=why)
        for fd in fds:
            self._told.forget(fd)
        close_all(fds)

    def _send(self, link: Link, key: str, fds: Sequence[int]) -> bool:
        try:
            self._told.send(link, key, fds)
        except OSError as error:
            self._scheduler.ended(link.lease, len(fds))
            self._held.setdefault(key, []).extend(fds)
            self._not_sent(link, error)
            return False
        close_all(fds)
        if link.sent(len(fds)):
            self._ask(link)
        self.untaken.mind()
        return True

    def _not_sent(self, link: Link, error: OSError) -> None:
        if isinstance(error, BlockingIOError):  # little memory for sockets, or one message too many
            self._scheduler.hold(link.lease)
            self._loop.add_writer(link.channel, partial(self._writable, link))
        elif error.errno in SHORT:
            self._backoff.rest("pass on", error)
        else:
            self._distrust(link, broke(error))

    def _pull(self) -> None:
        """Pass to others the connections that wait for workers that are gone or do not take."""
        # A copy: to pass a connection on may show that another channel is broken.
        for link in list(self._givers):
            if not self._is_emptied(link):
                continue
            if link.gone:
                self._givers.pop(link, None)
                del self._by_id[link.id]
                link.channel.close()
                self._tell(self._events.emptied, link.id)
            else:
                self.untaken.settle(link.lease)

    def _is_emptied(self, link: Link) -> bool:
        while link.waiting:
            if not any(self.room(key, 1) or self._is_removed(key) for key in link.keys):
                return False
            back = self._told.of(link.take_back(self._say))
            if link.ledger.known and not link.gone:
                link.ledger.passed -= len(back)
                self._scheduler.ended(link.lease, len(back))
            for each in link.public(back):
                self.pass_on(link.keys[each.listener], [each.fd])
        try:
            link.ask_again()
        except OSError as error:
            self._distrust(link, broke(error))
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
            self._loop.add_writer(link.channel, partial(self._writable, link))
        except OSError as error:
            self._distrust(link, broke(error))

    def _writable(self, link: Link) -> None:
        self._loop.remove_writer(link.channel)
        if not link.ledger.known or self.untaken.is_awaited(link.lease):
            self._ask(link)
        elif not link.ledger.asked:
            self._release(link)
        self._go()

    def _hear(self, link: Link) -> None:
        ledger = link.ledger
        asked, known, lost = ledger.asked, ledger.known, ledger.lost
        try:
            if (report := link.channel.receive()) is None:
                return
            self._scheduler.found(link.lease, ledger.hear(report))
        except Forged as error:
            self._distrust(link, str(error))
            return
        if ledger.lost != lost:
            self._say("error", LOST, worker=link.name, count=ledger.lost - lost,
                      why="it could open no more files", do="raise its limit")  # fmt: skip
        if asked and not ledger.asked:
            self._answered(link)
        if ledger.known and not known:
            self._tell(self._events.takes, link.lease, link.id)
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
                self._say("info", "worker takes connections again", worker=link.name)
        self.untaken.settle(link.lease)

    def _distrust(self, link: Link, why: str) -> None:
        if link.broken:
            return
        link.broken = why
        self._deafen(link)
        self._givers[link] = None
        self._scheduler.hold(link.lease)
        self._say("error", MISBEHAVES, worker=link.name, why=why,
                  means="it gets no more connections")  # fmt: skip
        self._tell(self._events.misbehaves, link.lease, why)
        self._loop.call_soon(self._go)

    def _forget(self, id: int) -> None:
        """Let go of what we know of a channel, if anything, and of nothing that is in it."""
        if link := self._by_id.pop(id, None):
            if not link.gone:
                del self._links[link.lease]
                self._part(link)
            self._givers.pop(link, None)
            self._deafen(link)
            link.channel.close()

    def _deafen(self, link: Link) -> None:
        self._loop.remove_reader(link.channel)
        self._loop.remove_writer(link.channel)
