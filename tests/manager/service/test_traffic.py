"""The queues of a service: which are fed, and who is told when one that is not has become quiet."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.fleet.messages import Fact, FeedFailed, Quiet
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.service.lease_map import LeaseModes
from sockmgr.manager.service.traffic import Traffic
from tests.helpers.dispatching import a_dispatcher
from tests.helpers.listeners import connect, hold_handshake, opened, take, tcp, unix


class Counting(ThreadPoolExecutor):
    """Counts what is asked of it: each membarrier(2), each look at all handshakes."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.asked += 1
        return super().submit(fn, *args, **kwargs)


async def told(facts: asyncio.Queue[Fact], number: int) -> set[int]:
    async with asyncio.timeout(20):
        found = [await facts.get() for _ in range(number)]
    return {fact.lease for fact in found if isinstance(fact, Quiet)}


def traffic(tasks: asyncio.TaskGroup, put: Callable[[Fact], None]) -> Traffic:
    return Traffic("web", tasks, put, Dispatching("web", a_dispatcher(), put))


def test_however_many_queues_are_unfed_at_once_the_kernel_is_asked_once_for_all() -> None:
    async def scenario(number: int) -> int:
        counting = Counting()
        asyncio.get_running_loop().set_default_executor(counting)
        facts = asyncio.Queue[Fact]()
        with opened(tcp()) as listener:
            async with asyncio.TaskGroup() as tasks:
                feeding = traffic(tasks, facts.put_nowait)
                all_of_them = dict.fromkeys(range(number), 1)
                feeding.feed(all_of_them, dict.fromkeys(all_of_them, (listener,)))
                feeding.feed({number: 1}, {number: (listener,)})
                assert await told(facts, number) == set(range(number))
        return counting.asked

    assert asyncio.run(scenario(16)) == asyncio.run(scenario(1))


def test_each_queue_is_told_when_it_is_empty_itself_whatever_waits_in_others() -> None:
    async def scenario() -> None:
        facts = asyncio.Queue[Fact]()
        with opened(tcp()) as listener:
            async with asyncio.TaskGroup() as tasks:
                feeding = traffic(tasks, facts.put_nowait)
                feeding.feed({1: 1}, {1: (listener,)})
                with connect(listener):
                    feeding.feed({0: 1, 1: 1, 2: 1}, dict.fromkeys(range(3), (listener,)))
                    feeding.feed({3: 1}, {3: (listener,)})
                    assert await told(facts, 2) == {0, 2}
                    assert facts.empty()
                    take(listener, 1)
                assert await told(facts, 1) == {1}

    asyncio.run(scenario())


def test_a_queue_that_another_service_left_is_waited_for_and_told_once() -> None:
    async def scenario() -> None:
        facts = asyncio.Queue[Fact]()
        with opened(tcp()) as listener:
            async with asyncio.TaskGroup() as tasks:
                feeding = traffic(tasks, facts.put_nowait)
                feeding.feed({0: 1}, {0: (listener,)})
                feeding.keep_waiting({3}, {0}, lambda: {3: (listener,)})
                assert await told(facts, 1) == {3}
                feeding.keep_waiting({3}, {0}, lambda: {3: (listener,)})
            assert facts.empty()

    asyncio.run(scenario())


def test_a_queue_that_is_fed_again_is_not_waited_for_and_its_clients_have_their_time() -> None:
    async def scenario() -> None:
        facts = asyncio.Queue[Fact]()
        with opened(tcp()) as listener, socket.socket() as client:
            hold_handshake(client, listener.queues[0].getsockname())
            listener.lease(1)
            async with asyncio.TaskGroup() as tasks:
                feeding = traffic(tasks, facts.put_nowait)
                feeding.feed({0: 1}, {0: (listener,)})
                feeding.feed({1: 1}, {1: (listener,)})
                while patience(listener.queues[0]) != 1:  # noqa: ASYNC110 - seen by asking only
                    await asyncio.sleep(0.005)
                feeding.feed({0: 1, 1: 1}, {0: (listener,), 1: (listener,)})
                assert patience(listener.queues[0]) == 5  # net.ipv4.tcp_synack_retries
            assert facts.empty()

    asyncio.run(scenario())


def test_what_cannot_be_steered_leaves_all_as_it_was_and_is_tried_again() -> None:
    async def scenario() -> None:
        facts = asyncio.Queue[Fact]()
        with opened(tcp()) as listener:
            async with asyncio.TaskGroup() as tasks:
                feeding = traffic(tasks, facts.put_nowait)
                feeding.feed({0: 1}, {0: (listener,)})
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(listener, "feed", refuse)
                    feeding.feed({1: 1}, {1: (listener,)})
                assert isinstance(facts.get_nowait(), FeedFailed)
                assert feeding.leases == {0}
                feeding.keep_up({1: 1}, {1: (listener,)})
                assert feeding.leases == {1}
                assert await told(facts, 1) == {0}

    asyncio.run(scenario())


class Recording:
    """A listener that notes how it is fed."""

    is_steered = True
    listen = Listen(name="http", address=Address(scheme=Scheme.TCP, host="127.0.0.1", port=1))

    def __init__(self) -> None:
        self.fed: list[object] = []

    def feed(self, share: object) -> None:
        self.fed.append(share)


class Pretended:
    """A dispatcher that passes on what comes to lease 5, and says by futures what was taken."""

    def __init__(self) -> None:
        self.taken: list[asyncio.Future[None]] = []

    def feed(self, *_: object) -> None:
        pass

    def queue(self, listener: object, passed: list[int]) -> int:
        del listener
        assert passed == [0, 1]
        return 5

    def quiet(self, lease: int) -> asyncio.Future[None]:
        assert lease == 0
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]


def test_a_quiet_of_an_earlier_wait_is_not_told() -> None:
    async def scenario() -> None:
        facts, dispatching = asyncio.Queue[Fact](), Pretended()
        with opened(tcp()) as listener:
            async with asyncio.TaskGroup() as tasks:
                feeding = Traffic("web", tasks, facts.put_nowait, dispatching)  # type: ignore[arg-type]
                for number in (1, 2):
                    feeding.feed({0: 1, 1: 1}, {0: (listener,), 1: (listener,)})
                    feeding.feed({1: 1}, {1: (listener,)})
                    while len(dispatching.taken) < number:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.005)
                for taken, is_told in zip(dispatching.taken, (False, True), strict=True):
                    taken.set_result(None)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    assert facts.empty() is not is_told

    asyncio.run(scenario())


def test_what_a_dispatcher_accepts_for_all_has_one_queue_with_all_their_weight() -> None:
    async def scenario() -> None:
        listener: Any = Recording()
        async with asyncio.TaskGroup() as tasks:
            dispatching: Any = Pretended()
            feeding = Traffic("web", tasks, lambda _: None, dispatching)
            feeding.modes = LeaseModes(passed=frozenset({0, 1}))
            feeding.feed({0: 2, 1: 1, 3: 1}, dict.fromkeys((0, 1, 3), (listener,)))
        assert listener.fed == [{5: 3, 3: 1}]

    asyncio.run(scenario())


def refuse(_: object) -> None:
    raise OSError(errno.EPERM, "not permitted")


def patience(queue: socket.socket) -> int:
    return queue.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT)


def test_a_listener_that_cannot_be_steered_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        facts = asyncio.Queue[Fact]()
        with opened(unix(tmp_path / "s")) as one, opened(tcp(scheme=Scheme.UDP)) as other:
            async with asyncio.TaskGroup() as tasks:
                feeding = traffic(tasks, facts.put_nowait)
                with connect(one):
                    feeding.feed({0: 1, 1: 1}, dict.fromkeys((0, 1), (one, other)))
                    feeding.feed({2: 1}, {2: (one, other)})
                    assert await told(facts, 2) == {0, 1}

    asyncio.run(scenario())


def test_clients_of_a_listener_that_is_new_wait_where_its_first_worker_will_be() -> None:
    async def scenario() -> None:
        with opened(tcp()) as one, opened(tcp()) as other:
            async with asyncio.TaskGroup() as tasks:
                feeding = Traffic(
                    "web", tasks, lambda _: None, Dispatching("web", a_dispatcher(), lambda _: None)
                )
                feeding.feed({0: 1}, {0: (one,)})
                feeding.expect(2, (one, other))
                assert (one.fed, other.fed) == ({0: 1}, {2: 1})

    asyncio.run(scenario())


def test_listeners_that_a_worker_brings_to_a_queue_that_is_fed_are_fed_there_as_well() -> None:
    async def scenario() -> None:
        with opened(tcp()) as one, opened(tcp()) as other:
            async with asyncio.TaskGroup() as tasks:
                feeding = Traffic(
                    "web", tasks, lambda _: None, Dispatching("web", a_dispatcher(), lambda _: None)
                )
                feeding.feed({1: 1}, {1: (one,)})
                assert other.fed == {0: 1}
                feeding.keep_up({1: 1}, {1: (one, other)})
                assert (one.fed, other.fed) == ({1: 1}, {1: 1})

    asyncio.run(scenario())
