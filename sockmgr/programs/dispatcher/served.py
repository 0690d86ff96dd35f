"""One service, as a manager has told of it: performs each message that is about the service."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.dispatcher import Dispatcher
from sockmgr.programs.dispatcher.events import Events
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.messages import Message
from sockmgr.programs.dispatcher.scheduler import Scheduler

Tell = Callable[[Message, Sequence[int]], None]


class Served:
    """Owns the listeners, the channels and the pidfds of one service."""

    def __init__(self, name: str, loop: Loop, tell: Tell, died: Callable[[], None]) -> None:
        """`tell` sends a message to the manager; `died` is called when a worker has."""
        self.name = name
        self._loop, self._tell, self._died = loop, tell, died
        events = Events(
            takes=lambda lease, channel: self._say("takes", lease=lease, channel=channel),
            misbehaves=lambda lease, why: self._say("misbehaves", lease=lease, why=why),
            quiet=self._is_quiet,
            emptied=lambda channel: self._say("emptied", channel=channel),
            say=self._log,
        )
        self._dispatcher = Dispatcher(loop, Scheduler(""), events)
        self._queues: dict[int, tuple[socket.socket, str]] = {}
        self._processes: dict[int, int] = {}  # a pidfd by lease
        self._asked: dict[int, int] = {}  # the number of the request for quiet by lease
        self._unnamed: set[int] = set()  # leases that no manager has told of since its hello

    # --- Messages, each by the name of what it asks ----------------------------------------------

    def service(self, message: Message, _: Sequence[int]) -> None:
        self._dispatcher.configure(message["policy"], message["most"])

    def attach(self, message: Message, fds: Sequence[int]) -> None:
        ours, theirs, *process = fds
        channel = Channel.adopt(ours, theirs)
        lease = message["lease"]
        if message["left"]:
            self._dispatcher.inherit(channel, message["keys"])
            return
        channel.is_new, channel.is_told = message["new"], message.get("told", False)
        self._unnamed.discard(lease)
        self._watch(lease, process)
        self._dispatcher.attach(lease, message["name"], channel, message["keys"])

    def moves(self, _: Message, fds: Sequence[int]) -> None:
        for fd in fds:
            self._dispatcher.queues.add(fd)

    def process(self, message: Message, fds: Sequence[int]) -> None:
        self._watch(message["lease"], fds)

    def abandon(self, message: Message, _: Sequence[int]) -> None:
        self._dispatcher.abandon(message["lease"])

    def detach(self, message: Message, _: Sequence[int]) -> None:
        self._part(message["lease"])

    def queue(self, message: Message, fds: Sequence[int]) -> None:
        [fd] = fds
        if message["queue"] in self._queues:
            os.close(fd)
        else:
            self._queues[message["queue"]] = socket.socket(fileno=fd), message["key"]

    def listen(self, message: Message, _: Sequence[int]) -> None:
        wanted = set(message["queues"])
        self._dispatcher.listen(
            {sock: key for queue, (sock, key) in self._queues.items() if queue in wanted}
        )
        for queue in self._queues.keys() - wanted:
            self._queues.pop(queue)[0].close()

    def feed(self, message: Message, _: Sequence[int]) -> None:
        weights: dict[int, int] = {}
        keys: dict[int, Sequence[str]] = {}
        for part, its in message["parts"]:
            for lease, weight in part.items():
                weights[int(lease)], keys[int(lease)] = weight, its
        meant = (set(its) for part, its in message["parts"] if not part)
        self._dispatcher.meant = next(meant, None)
        self._dispatcher.feed(weights, keys)

    def quiet(self, message: Message, _: Sequence[int]) -> None:
        self._asked[message["lease"]] = message["number"]
        self._dispatcher.quiet(message["lease"])

    def connections(self, message: Message, fds: Sequence[int]) -> None:
        self._dispatcher.take_over(message["key"], fds)

    def give(self, message: Message, fds: Sequence[int]) -> None:
        self._dispatcher.give(message["lease"], message["key"], fds)

    # --- The whole of it -------------------------------------------------------------------------

    @property
    def is_served(self) -> bool:
        """Whether a worker lives whose process is known."""
        return bool(self._processes)

    def begin_anew(self) -> None:
        """Expect another manager to tell of everything again."""
        self._unnamed = set(self._dispatcher.leases)
        self._dispatcher.untaken.await_none()
        self._asked.clear()

    def settle(self) -> None:
        """Let go of the workers that the new manager has not told of."""
        for lease in self._unnamed:
            self._part(lease)
        self._unnamed.clear()

    def count(self) -> None:
        dispatcher = self._dispatcher
        opened = {lease: dispatcher.open(lease) for lease in dispatcher.leases}
        self._say("counts", accepted=dispatcher.accepted, held=dispatcher.held, open=opened)

    def give_up(self) -> None:
        """Accept nothing more, and give the manager the connections that are held."""
        for key, held in self._dispatcher.give_up().items():
            self._tell({"is": "held", "service": self.name, "key": key}, held)

    def go_on(self) -> None:
        """Accept again after give_up(): nobody took over."""
        self._dispatcher.go_on(dict(self._queues.values()))

    def close(self) -> None:
        self._dispatcher.close()
        for lease in list(self._processes):
            self._unwatch(lease)
        for sock, _ in self._queues.values():
            sock.close()

    # --- Small things ----------------------------------------------------------------------------

    def _say(self, what: str, **about: object) -> None:
        self._tell({"is": what, "service": self.name, **about}, ())

    def _log(self, level: str, kind: str, /, **fields: object) -> None:
        self._say("said", level=level, kind=kind, fields=fields)

    def _is_quiet(self, lease: int) -> None:
        if (number := self._asked.pop(lease, None)) is not None:
            self._say("quiet", lease=lease, number=number)

    def _part(self, lease: int) -> None:
        self._unwatch(lease)
        self._dispatcher.detach(lease)

    def _watch(self, lease: int, process: Sequence[int]) -> None:
        for pidfd in process:
            self._unwatch(lease)
            self._processes[lease] = pidfd
            self._loop.add_reader(pidfd, lambda: self._on_death(lease))

    def _unwatch(self, lease: int) -> None:
        pidfd = self._processes.pop(lease, None)
        if pidfd is not None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _on_death(self, lease: int) -> None:
        # What it has started may live on and take; so it is only left out until it is detached.
        self._unwatch(lease)
        self._dispatcher.abandon(lease)
        self._died()
