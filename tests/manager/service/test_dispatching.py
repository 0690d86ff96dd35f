"""The dispatcher of a service: from its first worker on, whoever had a lease before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Collection
from typing import cast

import pytest

from sockmgr.config.spec import Accept, Listen, Spec
from sockmgr.errors import ListenError
from sockmgr.fleet.messages import Fact, Recycle, WorkerId
from sockmgr.kernel.process import Process
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.service.lease_map import LeaseModes
from sockmgr.manager.workers.worker import WorkerProcess
from sockmgr.programs.dispatcher.channel import Channel
from tests.helpers.children import PATIENCE
from tests.helpers.dispatching import Worker, a_dispatcher, until
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
        self.process = Process(os.getpid())
        self.ready = False

    def takes(self) -> None:
        self.ready = True

    @property
    def waiting(self) -> int:
        return self.channel.untaken

    @property
    def running(self) -> WorkerProcess:
        return cast("WorkerProcess", self)


@contextlib.asynccontextmanager
async def dispatching_to(facts: list[Fact]) -> AsyncIterator[tuple[Dispatching, Dispatcher]]:
    dispatcher = a_dispatcher()
    dispatcher.begin()
    dispatching = Dispatching("web", dispatcher, facts.append)
    yield dispatching, dispatcher
    dispatching.close()
    await dispatcher.end()


def fed(
    dispatching: Dispatching, listener: Listener, *leases: int, foreign: Collection[int] = ()
) -> None:
    modes = LeaseModes(foreign=frozenset(foreign), meant=frozenset([listener.listen.address]))
    dispatching.feed(dict.fromkeys(leases, 1), dict.fromkeys(leases, (listener,)), modes)


def test_what_was_fed_before_there_was_a_worker_is_fed_when_it_comes() -> None:
    async def main() -> None:
        async with dispatching_to([]) as (dispatching, dispatcher):
            with opened(tcp()) as listener, connect(listener):
                listener.feed({3: 1})
                assert dispatching.accepted is None
                fed(dispatching, listener, 3)  # from now on a dispatcher that has been is asked
                assert dispatching.accepted == 0
                worker = Played(1, 3, listener.listen)
                dispatching.attach(worker.running)
                await until(lambda: worker.end.has(1), what="the client is passed on")
                await until(lambda: worker.ready, what="the dispatcher has said that it takes")
                await dispatcher.count()
                assert dispatching.accepted == 1
                assert dispatching.connections(3) == 1
                assert dispatching.connections(4) is None
                worker.end.close()

    asyncio.run(main())


def test_whoever_comes_to_a_queue_that_another_service_has_is_left_to_it() -> None:
    async def main() -> None:
        async with dispatching_to([]) as (dispatching, _):
            with opened(tcp()) as listener, connect(listener):
                worker = Played(1, 0, listener.listen)
                dispatching.attach(worker.running)
                listener.feed({1: 1})  # by the service that has the listener from now on
                with connect(listener):
                    fed(dispatching, listener, 0, foreign=(0, 1))  # as 0 of its other listener
                    await until(lambda: worker.end.has(1), what="who came before is passed on")
                    assert listener.waiting(1) == 1
                    listener.feed({0: 1})
                    fed(dispatching, listener, 0)
                    await until(lambda: worker.end.has(2), what="the queue is nobody's again")
                worker.end.close()

    asyncio.run(main())


def test_a_successor_takes_the_lease_of_one_that_was_killed_and_has_not_ended() -> None:
    async def main() -> None:
        async with dispatching_to([]) as (dispatching, dispatcher):
            with opened(tcp()) as listener, contextlib.ExitStack() as clients:
                killed, successor = Played(1, 0, listener.listen), Played(2, 0, listener.listen)
                dispatching.attach(killed.running)
                fed(dispatching, listener, 0)
                await until(lambda: killed.end.take() or killed.ready, what="it takes")
                for _ in range(2):
                    clients.enter_context(connect(listener))
                await until(lambda: killed.waiting == 2, what="both wait for it")
                dispatching.attach(successor.running)
                await until(lambda: successor.end.has(2), what="the successor has them")
                assert killed.running.channel is None
                dispatching.detach(killed.running)
                await dispatcher.count()
                assert dispatching.connections(0) == 2
                killed.end.close()
                successor.end.close()

    asyncio.run(main())


def test_a_worker_that_lies_is_to_be_recycled() -> None:
    async def main() -> None:
        facts: list[Fact] = []
        async with dispatching_to(facts) as (dispatching, _):
            with opened(tcp()) as listener:
                worker = Played(5, 0, listener.listen)
                dispatching.attach(worker.running)
                os.write(worker.channel.theirs, b"nonsense")
                await until(lambda: facts, what="it is told of")
                assert isinstance(facts[0], Recycle)
                assert facts[0].worker == WorkerId(1, 5)
                worker.end.close()

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_connection_of_ours_comes_to_a_worker_that_is_not_fed(host: str) -> None:
    async def main() -> None:
        async with dispatching_to([]) as (dispatching, _):
            with opened(tcp(host)) as listener, connect(listener):
                old, new = (Played(1, n, listener.listen) for n in (0, 1))
                for each in (old, new):
                    dispatching.attach(each.running)
                    await until(lambda: each.end.take() or each.ready, what="it takes")  # noqa: B023
                fed(dispatching, listener, 0)
                with await dispatching.reach(1, listener) as mine:
                    await until(lambda: new.end.has(1), what="it is passed on")
                    [taken] = new.end.taken
                    assert taken.listener == "http"
                    assert taken.family == listener.queues[0].family
                    assert taken.getpeername()[:2] == mine.getsockname()[:2]
                    assert not mine.getblocking()
                    await until(lambda: old.end.has(1), what="the public goes where it went")
                old.end.close()
                new.end.close()

    asyncio.run(main())


def test_a_connection_of_ours_waits_for_a_worker_that_has_not_answered_yet() -> None:
    async def main() -> None:
        async with dispatching_to([]) as (dispatching, _):
            with opened(tcp()) as listener:
                one, gone = (Played(1, n, listener.listen) for n in (0, 1))
                for each in (one, gone):
                    dispatching.attach(each.running)
                asked = [asyncio.create_task(dispatching.reach(n, listener)) for n in (0, 1)]
                dispatching.detach(gone.running)
                with pytest.raises(ListenError, match="no connection can be passed now"):
                    await asked[1]
                await until(lambda: one.end.take() or one.ready, what="it takes")
                with await asked[0]:
                    await until(lambda: one.end.has(1), what="it is passed on")
                one.end.close()
                gone.end.close()

    asyncio.run(main())


def test_a_connection_of_ours_ends_with_the_dispatcher_that_knows_whose_it_is() -> None:
    async def main() -> None:
        async with dispatching_to([]) as (dispatching, dispatcher):
            with opened(tcp()) as listener:
                with pytest.raises(ListenError, match="no connection can be passed now"):
                    await dispatching.reach(0, listener)
                worker = Played(1, 0, listener.listen)
                dispatching.attach(worker.running)
                await until(lambda: worker.end.take() or worker.ready, what="it takes")
                with await dispatching.reach(0, listener) as mine:
                    await until(lambda: worker.end.has(1), what="it is passed on")
                    assert dispatcher.pid
                    os.kill(dispatcher.pid, signal.SIGKILL)
                    async with asyncio.timeout(PATIENCE):
                        assert await asyncio.get_running_loop().sock_recv(mine, 1) == b""
                worker.end.close()

    asyncio.run(main())
