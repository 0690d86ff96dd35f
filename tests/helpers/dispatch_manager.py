"""No more of a manager than a dispatcher: adopts what it is given, and dies as a test likes.

Descriptors from 3 on: the listener, and for each worker both ends of its channel and its pidfd.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket

from sockmgr.manager.dispatch.channel import Channel
from sockmgr.manager.dispatch.dispatcher import Dispatcher, Events, Timing
from sockmgr.manager.dispatch.scheduler import Policy, Scheduler

TIMING = Timing(take=0.5, replace=1000)


async def main(workers: int) -> None:
    """Print "takes N" and "gone N" as it happens; end at TERM."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    fed: set[int] = set()

    def feed() -> None:
        dispatcher.feed(dict.fromkeys(fed, 1))

    def takes(lease: int) -> None:
        fed.add(lease)
        feed()
        print("takes", lease)

    def misbehaves(lease: int, why: str) -> None:
        print("misbehaves", lease, why)

    def gone(lease: int, pidfd: int) -> None:
        loop.remove_reader(pidfd)
        fed.discard(lease)
        feed()
        dispatcher.detach(lease)
        print("gone", lease)

    events = Events(takes=takes, misbehaves=misbehaves)
    dispatcher = Dispatcher(loop, Scheduler(Policy.ROUND_ROBIN), events, TIMING)
    with socket.socket(fileno=3) as listener:
        dispatcher.listen({listener: "http"})
        for lease in range(workers):
            ours, theirs, pidfd = range(4 + 3 * lease, 7 + 3 * lease)
            dispatcher.attach(lease, f"web@1.{lease}", Channel.adopt(ours, theirs), ["http"])
            loop.add_reader(pidfd, gone, lease, pidfd)
        await over.wait()
        dispatcher.close()


asyncio.run(main(int(os.environ["WORKERS"])))
