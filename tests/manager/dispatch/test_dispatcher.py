"""The manager's side of the dispatcher: whatever becomes of it, nothing that waits is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from sockmgr.manager.dispatch import process
from sockmgr.manager.dispatch.dispatcher import CONNECTION, PIDFD, Dispatcher
from sockmgr.manager.dispatch.service import Events, ServiceDispatch
from sockmgr.programs.dispatcher.channel import Channel
from tests.helpers.children import PATIENCE
from tests.helpers.dispatching import Worker, listening, until


class Site:
    """A manager's dispatcher, one service with one listener, and workers that the test plays."""

    def __init__(self, dispatcher: Dispatcher, listener: socket.socket, name: str = "web") -> None:
        self.dispatcher, self.listener = dispatcher, listener
        self.took: list[int] = []
        self.misbehaved: dict[int, str] = {}
        self.clients = contextlib.ExitStack()
        events = Events(takes=self.took.append, misbehaves=self.misbehaved.__setitem__)
        self.service = ServiceDispatch(name, dispatcher, events)
        self.service.configure("round-robin", None)
        self.service.listen({listener: "http"})
        self.service.begin()

    def feed(self, *leases: int) -> None:
        keys = {lease: ["http"] for lease in leases}
        self.service.feed(dict.fromkeys(leases, 1), keys, ["http"])

    async def join(self, lease: int) -> Worker:
        """Return a worker that takes connections and is fed, as those of lower leases are."""
        channel = Channel.create()
        worker = Worker(channel, ["http"])
        self.clients.callback(worker.close)
        self.service.attach(lease, f"web@1.{lease}", channel, ["http"], -1)
        await until(lambda: worker.take() or lease in self.took, what="it takes")
        self.feed(*range(lease + 1))
        return worker

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), timeout=PATIENCE)
        return self.clients.enter_context(client)

    async def another(self, before: int) -> int:
        """Return the pid of the dispatcher that is there instead of that one."""
        await until(lambda: self.pid not in (0, before), what="another dispatcher")
        return self.pid

    @property
    def pid(self) -> int:
        """The one that serves."""
        written = self.dispatcher.written
        return written.pid if written and not self.dispatcher.is_missing else 0


def run(main: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        with listening() as listener:
            async with dispatcher_of(lambda: None, {}) as dispatcher:
                site = Site(dispatcher, listener)
                with site.clients:
                    await main(site)
                    site.service.close()

    asyncio.run(play())


@contextlib.asynccontextmanager
async def dispatcher_of(
    changed: Callable[[], None], left: dict[str, list[int]], *, is_upgrade: bool = False
) -> AsyncIterator[Dispatcher]:
    made = Dispatcher(changed, left, is_last=False, is_upgrade=is_upgrade)
    made.begin()
    try:
        yield made
    finally:
        await made.end()


def test_what_is_said_of_a_worker_is_not_taken_for_its_successor() -> None:
    async def main(site: Site) -> None:
        first, second = Channel.create(), Channel.create()
        site.service.attach(0, "web@1.1", first, ["http"], -1)
        of_the_first = first.id
        site.service.detach(0)
        site.service.attach(0, "web@1.2", second, ["http"], -1)
        site.service.hear({"is": "takes", "lease": 0, "channel": of_the_first})
        assert not site.took
        site.service.hear({"is": "takes", "lease": 0, "channel": second.id})
        assert site.took == [0]

    run(main)


def test_none_is_started_before_a_service_asks_for_it() -> None:
    async def main() -> None:
        async with dispatcher_of(lambda: None, {}) as dispatcher:
            assert not dispatcher.pids

    asyncio.run(main())


def test_it_is_kept_for_the_next_manager_before_it_has_a_channel() -> None:
    async def main() -> None:
        kept: list[int] = []

        def changed() -> None:
            with socket.socket(fileno=os.dup(dispatcher.descriptors[CONNECTION])) as connection:
                kept.append(dispatcher.descriptors[PIDFD])
                assert connection.type == socket.SOCK_SEQPACKET
                assert not site.took

        with listening() as listener:
            async with dispatcher_of(changed, {}) as dispatcher:
                site = Site(dispatcher, listener)
                with site.clients:
                    await site.join(0)
                    assert len(kept) == 1
                    site.service.close()

    asyncio.run(main())


def test_a_service_that_comes_to_one_that_runs_is_served_as_well() -> None:
    async def main(site: Site) -> None:
        await site.join(0)
        with listening() as listener:
            other = Site(site.dispatcher, listener, name="api")
            with other.clients:
                worker = await other.join(0)
                other.connect()
                await until(lambda: worker.has(1), what="it is passed on")
                other.service.close()

    run(main)


def test_one_that_is_killed_is_replaced_and_the_next_one_knows_what_is_open() -> None:
    async def main(site: Site) -> None:
        worker = await site.join(0)
        site.connect()
        await until(lambda: worker.has(1), what="it is passed on")
        await site.dispatcher.count()
        before = site.pid
        os.kill(before, signal.SIGKILL)
        site.connect()
        await until(lambda: worker.has(2), what="who came meanwhile is passed on as well")
        assert await site.another(before) != before
        await site.dispatcher.count()
        assert (site.service.accepted, site.service.open(0)) == (2, 2)
        assert not site.misbehaved

    run(main)


def test_what_waits_for_a_dead_worker_outlives_the_dispatcher() -> None:
    async def main(site: Site) -> None:
        await site.join(0)
        for _ in range(3):
            site.connect()
        await site.dispatcher.count()
        while site.service.open(0) != 3:
            await site.dispatcher.count()
        site.feed()
        site.service.detach(0)  # and there is nobody to whom they could be given
        await site.dispatcher.count()
        before = site.pid
        os.kill(before, signal.SIGKILL)
        await site.another(before)
        site.took.clear()
        successor = await site.join(0)
        await until(lambda: successor.has(3), what="the successor has them")

    run(main)


def test_one_that_was_stopped_is_replaced_when_somebody_asks() -> None:
    async def main(site: Site) -> None:
        worker = await site.join(0)
        before = site.pid
        os.kill(before, signal.SIGSTOP)
        site.connect()

        def is_passed_on() -> bool:
            site.dispatcher.probe()  # an earlier question may have been answered just before
            return worker.has(1)

        await until(is_passed_on, what="another one passes it on")
        assert site.pid != before

    run(main)


def test_who_waits_for_quiet_is_told_by_the_next_one() -> None:
    async def main(site: Site) -> None:
        worker = await site.join(0)
        site.connect()
        await until(lambda: worker.connections.fileno() >= 0, what="it is there")
        while site.service.open(0) != 1:
            await site.dispatcher.count()
        site.feed()
        quiet = site.service.quiet(0)
        before = site.pid
        os.kill(before, signal.SIGKILL)
        await site.another(before)
        assert not quiet.done()
        worker.take()
        await quiet

    run(main)


def test_one_that_dies_again_and_again_is_started_again_ever_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(3)")

    async def main() -> None:
        with listening() as listener:
            async with dispatcher_of(lambda: None, {}) as dispatcher:
                site = Site(dispatcher, listener)
                ended: list[str] = []

                def told() -> int:
                    ended[:] = [
                        record.getMessage()
                        for record in caplog.records
                        if "dispatcher ended" in record.getMessage()
                    ]
                    return len(ended)

                await until(lambda: told() >= 4, what="it dies four times")
                assert dispatcher.is_missing
                delays = [float(each.rpartition("another_in=")[2]) for each in ended]
                assert delays[:4] == [0.0, 0.2, 0.4, 0.8]
                assert "exited with status 3" in ended[0]
                site.service.close()

    asyncio.run(main())


def test_the_next_manager_goes_on_with_it_and_an_upgrade_replaces_it_without_a_loss() -> None:
    async def main() -> None:
        with listening() as listener, contextlib.ExitStack() as stack:
            first = Dispatcher(lambda: None, {}, is_last=False, is_upgrade=False)
            first.begin()
            site = Site(first, listener)
            worker = await site.join(0)
            stack.push(site.clients)
            site.connect()
            await until(lambda: worker.has(1), what="it is passed on")
            pids = [site.pid]
            for count, is_upgrade in ((2, False), (3, True)):
                site = succeed(site, is_upgrade=is_upgrade)
                stack.push(site.clients)
                site.connect()
                await until(lambda n=count: worker.has(n), what="who comes is passed on")  # type: ignore[misc]
                await until(lambda s=site: worker.take() or s.took, what="it takes")  # type: ignore[misc]
                pids.append(await site.another(pids[-1] if is_upgrade else 0))
            assert pids[0] == pids[1] != pids[2]
            await site.dispatcher.count()
            assert site.service.open(0) == 3
            site.service.close()
            await site.dispatcher.end()

    asyncio.run(main())


def succeed(site: Site, *, is_upgrade: bool) -> Site:
    """Let go of a dispatcher as the death of its manager does; return what the next one has."""
    left = {name: [os.dup(fd)] for name, fd in site.dispatcher.descriptors.items()}
    [attached] = site.service._workers.values()
    channel = Channel.adopt(os.dup(attached.channel.fileno()), os.dup(attached.channel.theirs))
    assert site.dispatcher._serving
    site.dispatcher._serving.close()
    site.dispatcher._is_ready = False
    site.service.close()

    later = Dispatcher(lambda: None, left, is_last=False, is_upgrade=is_upgrade)
    assert not left
    after = Site(later, site.listener)
    after.service.attach(0, "web@1.0", channel, ["http"], -1)
    after.feed(0)
    later.begin()
    return after
