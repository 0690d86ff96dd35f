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
from sockmgr.manager.service.dispatching import Passing
from sockmgr.manager.workers.worker import Running
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
    def running(self) -> Running:
        return cast("Running", self)


def fed(passing: Passing, listener: Listener, *leases: int) -> None:
    passing.feed(dict.fromkeys(leases, 1), dict.fromkeys(leases, (listener,)), ())


def test_what_was_fed_before_there_was_a_worker_is_fed_when_it_comes() -> None:
    async def main() -> None:
        passing = Passing(lambda _: None)
        with opened(tcp()) as listener, connect(listener):
            fed(passing, listener, 3)
            assert passing.quiet(3) is None
            worker = Played(1, 3, listener.listen)
            passing.attach(worker.running)
            await until(lambda: worker.end.has(1), what="the client is passed on")
            assert worker.ready
            assert passing.connections(3) == 1
            assert passing.connections(4) is None
            worker.end.close()
            passing.close()

    asyncio.run(main())


def test_a_successor_takes_the_lease_of_one_that_was_killed_and_has_not_ended() -> None:
    async def main() -> None:
        passing = Passing(lambda _: None)
        with opened(tcp()) as listener, contextlib.ExitStack() as clients:
            killed, successor = Played(1, 0, listener.listen), Played(2, 0, listener.listen)
            passing.attach(killed.running)
            fed(passing, listener, 0)
            killed.end.take()
            await until(lambda: killed.ready, what="it takes")
            for _ in range(2):
                clients.enter_context(connect(listener))
            await until(lambda: passing.connections(0) == 2, what="both wait for it")
            passing.attach(successor.running)
            await until(lambda: successor.end.has(2), what="the successor has them")
            assert killed.running.channel is None
            passing.detach(killed.running)
            assert passing.connections(0) == 2
            killed.end.close()
            successor.end.close()
            passing.close()

    asyncio.run(main())


def test_a_worker_that_lies_is_to_be_recycled() -> None:
    async def main() -> None:
        facts: list[Fact] = []
        passing = Passing(facts.append)
        with opened(tcp()) as listener:
            worker = Played(5, 0, listener.listen)
            passing.attach(worker.running)
            os.write(worker.channel.theirs, b"nonsense")
            await until(lambda: facts, what="it is told of")
            assert isinstance(facts[0], Recycle)
            assert facts[0].worker == WorkerId(1, 5)
            worker.end.close()
            passing.close()

    asyncio.run(main())
