"""The dispatcher of a service: from its first worker on, whoever had a lease before."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import cast

from sockmgr.config.spec import Accept, Listen, Spec
from sockmgr.fleet.messages import Fact, Recycle, WorkerId
from sockmgr.manager.dispatch.channel import Channel
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.workers.worker import WorkerProcess
from tests.helpers.dispatching import Worker, until
from tests.helpers.listeners import connect, opened, tcp


class Played:
    """What Passing sees of a worker; the test plays its other end."""

    def __init__(self, slot: int, lease: int, listen: Listen) -> None:
        self.id, self.lease, self.name = WorkerId(1, slot), lease, f"web@1.{slot}"
        self.spec = Spec(
            service="web", argv=("x",), executable="/x", cwd="/", listen=(listen,),
            accept=Accept.DISPATCH, max_connections=2,
        )  # fmt: skip
        self.channel = Channel.create()
        self.end = Worker(self.channel, ["http"])
        self.ready = False

    def takes(self) -> None:
        self.ready = True

    @property
    def running(self) -> WorkerProcess:
        return cast("WorkerProcess", self)


def fed(dispatching: Dispatching, listener: Listener, *leases: int) -> None:
    dispatching.feed(dict.fromkeys(leases, 1), dict.fromkeys(leases, (listener,)), ())


def test_what_was_fed_before_there_was_a_worker_is_fed_when_it_comes() -> None:
    async def main() -> None:
        dispatching = Dispatching(lambda _: None)
        with opened(tcp()) as listener, connect(listener):
            fed(dispatching, listener, 3)
            assert dispatching.quiet(3) is None
            worker = Played(1, 3, listener.listen)
            dispatching.attach(worker.running)
            await until(lambda: worker.end.has(1), what="the client is passed on")
            assert worker.ready
            assert dispatching.connections(3) == 1
            assert dispatching.connections(4) is None
            worker.end.close()
            dispatching.close()

    asyncio.run(main())


def test_a_successor_takes_the_lease_of_one_that_was_killed_and_has_not_ended() -> None:
    async def main() -> None:
        dispatching = Dispatching(lambda _: None)
        with opened(tcp()) as listener, contextlib.ExitStack() as clients:
            killed, successor = Played(1, 0, listener.listen), Played(2, 0, listener.listen)
            dispatching.attach(killed.running)
            fed(dispatching, listener, 0)
            killed.end.take()
            await until(lambda: killed.ready, what="it takes")
            for _ in range(2):
                clients.enter_context(connect(listener))
            await until(lambda: dispatching.connections(0) == 2, what="both wait for it")
            dispatching.attach(successor.running)
            await until(lambda: successor.end.has(2), what="the successor has them")
            assert killed.running.channel is None
            dispatching.detach(killed.running)
            assert dispatching.connections(0) == 2
            killed.end.close()
            successor.end.close()
            dispatching.close()

    asyncio.run(main())


def test_a_worker_that_lies_is_to_be_recycled() -> None:
    async def main() -> None:
        facts: list[Fact] = []
        dispatching = Dispatching(facts.append)
        with opened(tcp()) as listener:
            worker = Played(5, 0, listener.listen)
            dispatching.attach(worker.running)
            os.write(worker.channel.theirs, b"nonsense")
            await until(lambda: facts, what="it is told of")
            assert isinstance(facts[0], Recycle)
            assert facts[0].worker == WorkerId(1, 5)
            worker.end.close()
            dispatching.close()

    asyncio.run(main())
