"""What the dispatcher is to do for one service: kept here, and said to each dispatcher anew.

Owns the channels of the workers, those that are gone as well, until nothing is left in them: so
what waits in them outlives any dispatcher. Borrows the listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sockmgr.kernel.queues import inode
from sockmgr.log import Log
from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.messages import Message

if TYPE_CHECKING:
    from sockmgr.manager.dispatch.dispatcher import Dispatcher

log = Log("sockmgr.dispatch")

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Callbacks; none is called from within a method of ServiceDispatch."""

    takes: Callable[[int], None]  # the worker of this lease takes connections
    misbehaves: Callable[[int, str], None]  # replace the worker of this lease, for this reason


@dataclass(slots=True, kw_only=True)
class _Attached:
    name: str
    channel: Channel
    keys: Sequence[str]
    pidfd: int = -1
    told: bool = False
    leaving: bool = False


@dataclass(slots=True)
class _Counts:
    accepted: int = 0
    held: int = 0
    open: dict[int, int] = field(default_factory=dict)


class ServiceDispatch:
    """One service. What is asked of it is said at once, or when there is a dispatcher."""

    def __init__(self, name: str, dispatcher: Dispatcher, events: Events) -> None:
        """Begin with no listener and no worker: until the first one there is nobody to tell."""
        self.name, self.is_begun = name, False
        self._dispatcher, self._events = dispatcher, events
        self._policy = ""
        self._most: int | None = None
        self._workers: dict[int, _Attached] = {}
        self._left: dict[int, tuple[Channel, Sequence[str]]] = {}
        self.sources: Mapping[socket.socket, str] = {}
        self._said: set[int] = set()  # the queues that the present dispatcher has
        self._parts: list[tuple[dict[int, int], Sequence[str]]] = []
        self._queues: dict[int, socket.socket] = {}  # to take from what workers gave, by inode
        self._quiet: dict[int, tuple[int, asyncio.Future[None]]] = {}
        self._given: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._counts, self._before = _Counts(), 0

    # --- What is to be ---------------------------------------------------------------------------

    def configure(self, policy: str, most: int | None) -> None:
        """Go by another policy; give each worker at most `most` connections."""
        if (policy, most) == (self._policy, self._most):
            return  # as after most facts
        self._policy, self._most = policy, most
        self._say_policy()

    def listen(self, sources: Mapping[socket.socket, str]) -> None:
        """Accept from these sockets only; the value is what names the listener of each."""
        self.sources = dict(sources)
        self._say_sources()

    def attach(
        self,
        lease: int,
        name: str,
        channel: Channel,
        keys: Sequence[str],
        pidfd: int,
        moves: int = -1,
    ) -> None:
        """Own the channel of a worker; `pidfd`, borrowed, is -1 as long as it has no process.

        `moves`, if not -1, is the end to take from of the queue by which it gives connections away:
        it knows what is told of those that others gave. A duplicate is taken.
        """
        attached = _Attached(name=name, channel=channel, keys=keys, pidfd=pidfd, told=moves >= 0)
        if moves >= 0:
            self._have_queue(moves)
        self._workers[lease] = attached
        if self.is_begun:
            self._say_attached(lease, attached)
        else:  # most services never need one, and a reload may turn `accept` to "dispatch"
            self.begin()

    def begin(self) -> None:
        """Have a dispatcher serve it from now on."""
        self.is_begun = True
        self._dispatcher.serve(self)
        self.say_all()

    def _have_queue(self, fd: int) -> None:
        number = os.fstat(fd).st_ino
        if number not in self._queues:
            self._queues[number] = socket.socket(fileno=os.dup(fd))
            self._say("moves", [fd])

    def end_queues(self, but: Collection[int]) -> None:
        """Let go of all move queues but these, given by their inodes: they have been shut."""
        for number in self._queues.keys() - set(but):
            self._queues.pop(number).close()

    def process(self, lease: int, pidfd: int) -> None:
        """Know the process of a worker, by a pidfd that is borrowed."""
        attached = self._workers[lease]
        if attached.pidfd < 0:
            attached.pidfd = pidfd
            self._say("process", [pidfd], lease=lease)

    def detach(self, lease: int) -> None:
        """Know that a worker is gone: what it had not taken goes to others."""
        # The channel stays ours until the dispatcher has emptied it: clients wait in there.
        attached = self._workers.pop(lease)
        self._left[attached.channel.id] = (attached.channel, attached.keys)
        self._counts.open.pop(lease, None)
        self._say("detach", lease=lease)

    def abandon(self, lease: int) -> None:
        """Pass nothing more to a worker that has begun to leave; others get what waits for it."""
        self._workers[lease].leaving = True
        self._say("abandon", lease=lease)

    def give(self, lease: int, key: str, ends: tuple[socket.socket, socket.socket]) -> None:
        """Pass this worker alone the second end of a connection, fed or not, and close that here.

        If it cannot be passed, the connection ends. The first end is borrowed.
        """
        ours, theirs = ends
        with theirs:
            self._given.add(ours)
            self._say("give", [theirs.fileno()], lease=lease, key=key)

    def feed(
        self, weights: Mapping[int, int], keys: Mapping[int, Collection[str]], meant: Sequence[str]
    ) -> None:
        """Give new connections to these leases only, each from the listeners `keys`.

        `meant` are all that some worker may be passed: who came by another one is closed.
        """
        parts: dict[tuple[str, ...], dict[int, int]] = {}
        for lease, weight in weights.items():
            parts.setdefault(tuple(keys[lease]), {})[lease] = weight
        self._parts = [(weights, keys) for keys, weights in parts.items()] + [({}, meant)]
        self._say_parts()

    def quiet(self, lease: int) -> asyncio.Future[None]:
        """Return a future that is done when an unfed worker has nothing waiting, or is gone."""
        # A question that is asked already is not asked again, unless its asker has given up.
        if (known := self._quiet.get(lease)) and not known[1].cancelled():
            return known[1]
        future = asyncio.get_running_loop().create_future()
        self._quiet[lease] = (next(_numbers), future)
        self._say_quiet(lease)
        return future

    def close(self) -> None:
        """Accept nothing more, and close the channels."""
        self._say("forget")
        self.is_begun = False
        self._dispatcher.forget(self)
        for attached in self._workers.values():
            attached.channel.close()
        for channel, _ in self._left.values():
            channel.close()
        self.end_queues(())
        for _, future in self._quiet.values():
            future.cancel()

    # --- What is ---------------------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        """How many connections were accepted, as far as the last count tells."""
        return self._before + self._counts.accepted

    def open(self, lease: int) -> int:
        """Return how many connections a worker had at the last count, untaken ones included."""
        return self._counts.open.get(lease, 0)

    # --- A dispatcher ----------------------------------------------------------------------------

    def say_all(self) -> None:
        """Say to a dispatcher, whatever it knows, all that is to be."""
        # Workers before sources: what is accepted first must find somebody who takes it.
        self._said.clear()
        self._say_policy()
        for lease, attached in self._workers.items():
            self._say_attached(lease, attached)
        for channel, keys in self._left.values():
            self._say_channel(channel, (), lease=-1, name="", keys=keys, left=True, told=False)
        self._say_parts()
        self._say_sources()
        for queue in self._queues.values():
            self._say("moves", [queue.fileno()])
        for lease in self._quiet:
            self._say_quiet(lease)

    def is_new(self) -> None:
        """Know that the next dispatcher counts from the beginning."""
        # The total must not fall when a dispatcher is replaced: it is a counter of the metrics.
        self._before += self._counts.accepted
        self._counts = _Counts()
        # It does not know which of the connections that wait for a worker no other may get.
        for ours in self._given:
            with contextlib.suppress(OSError):  # it has ended
                ours.shutdown(socket.SHUT_RDWR)

    def hear(self, message: Message) -> None:
        """Take what the dispatcher says of this service."""
        match message["is"]:
            case "takes":
                self._takes(message["lease"], message.get("channel"))
            case "misbehaves":
                self._events.misbehaves(message["lease"], message["why"])
            case "quiet":
                self._be_quiet(message["lease"], message["number"])
            case "emptied":
                if left := self._left.pop(message["channel"], None):
                    left[0].close()
            case "counts":
                opened = {int(lease): count for lease, count in message["open"].items()}
                self._counts = _Counts(message["accepted"], message["held"], opened)

    def _takes(self, lease: int, channel: int | None) -> None:
        known = self._workers.get(lease)
        # It may be said of the worker whose place this one has taken meanwhile.
        if known and channel in (None, known.channel.id):
            self._events.takes(lease)

    def _be_quiet(self, lease: int, number: int) -> None:
        asked = self._quiet.get(lease)
        # An answer to an earlier question says nothing about what has come since.
        if asked and asked[0] == number:
            del self._quiet[lease]
            if not asked[1].done():
                asked[1].set_result(None)

    # --- Messages --------------------------------------------------------------------------------

    def _say(self, do: str, fds: Sequence[int] = (), /, **about: Any) -> None:
        if self.is_begun:
            self._dispatcher.tell({"do": do, "service": self.name, **about}, fds)

    def _say_policy(self) -> None:
        self._say("service", policy=self._policy, most=self._most)

    def _say_attached(self, lease: int, attached: _Attached) -> None:
        process = [attached.pidfd] if attached.pidfd >= 0 else []
        about = {"lease": lease, "name": attached.name, "keys": attached.keys, "left": False,
                 "told": attached.told}  # fmt: skip
        self._say_channel(attached.channel, process, **about)
        if attached.leaving:
            self._say("abandon", lease=lease)

    def _say_channel(self, channel: Channel, process: Sequence[int], **about: Any) -> None:
        fds = [channel.fileno(), channel.theirs, *process]
        self._say("attach", fds, channel=channel.id, new=channel.is_new, **about)
        channel.is_new = False

    def _say_sources(self) -> None:
        if not self.is_begun:
            return
        # A queue is sent once and then named by its inode, since a feed can be for hundreds.
        queues = {inode(sock): (sock, key) for sock, key in self.sources.items()}
        for queue in queues.keys() - self._said:
            sock, key = queues[queue]
            self._say("queue", [sock.fileno()], queue=queue, key=key)
        self._said = set(queues)
        self._say("listen", queues=list(queues))

    def _say_parts(self) -> None:
        self._say("feed", parts=self._parts)

    def _say_quiet(self, lease: int) -> None:
        self._say("quiet", lease=lease, number=self._quiet[lease][0])
