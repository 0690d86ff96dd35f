"""A process that is no more than a dispatcher: adopts what it is given, and dies as a test likes.

Descriptors from 3 on: the listener, and for each worker both ends of its channel and its pidfd.
Prints "takes N" and "gone N" as it happens.
"""

from __future__ import annotations

import os
import socket

from sockmgr.config.spec import Policy
from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.dispatcher import Dispatcher
from sockmgr.programs.dispatcher.events import Events, Timing
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.scheduler import Scheduler

TIMING = Timing(take=0.5, replace=1000)


class Process:
    """One dispatcher, and who is fed."""

    def __init__(self) -> None:
        self.loop, self.fed = Loop(), set[int]()
        events = Events(
            takes=self.takes,
            misbehaves=lambda lease, why: print("misbehaves", lease, why),
            quiet=lambda _: None,
            emptied=lambda _: None,
            say=lambda level, kind, /, **fields: print(level, kind, fields),
        )
        scheduler = Scheduler(Policy.ROUND_ROBIN)
        self.dispatcher = Dispatcher(self.loop, scheduler, events, TIMING)

    def takes(self, lease: int, _: int) -> None:
        self.fed.add(lease)
        self.feed()
        print("takes", lease)

    def feed(self) -> None:
        self.dispatcher.feed(dict.fromkeys(self.fed, 1), {lease: ["http"] for lease in self.fed})

    def gone(self, lease: int, pidfd: int) -> None:
        self.loop.remove_reader(pidfd)
        self.fed.discard(lease)
        self.feed()
        self.dispatcher.detach(lease)
        print("gone", lease)

    def adopt(self, lease: int, ours: int, theirs: int, pidfd: int) -> None:
        channel = Channel.adopt(ours, theirs)
        self.dispatcher.attach(lease, f"web@1.{lease}", channel, ["http"])
        self.loop.add_reader(pidfd, lambda: self.gone(lease, pidfd))


def main(workers: int) -> None:
    process = Process()
    with socket.socket(fileno=3) as listener:
        process.dispatcher.listen({listener: "http"})
        for lease in range(workers):
            first = 4 + 3 * lease
            process.adopt(lease, first, first + 1, first + 2)
        while True:
            process.loop.turn()


main(int(os.environ["WORKERS"]))
