"""A connection of the manager's own comes to the queue of any lease, and nobody else's does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.config.spec import Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel.steering import round_robin
from sockmgr.kernel.steering.pool import Choice
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from tests.helpers.capabilities import needs_bpf
from tests.helpers.hammer import Hammer, Server
from tests.helpers.listeners import connect, opened, take, tcp, unix

SIZE, UNFED = 5, 4
LIMIT = 20.0  # seconds, for what takes none
FED = {
    Choice.ONE: {0: 1},
    Choice.RANDOM: {0: 1, 1: 1, 2: 1},
    Choice.ROUND_ROBIN: {0: 1, 1: 1, 2: 1},
}


@pytest.fixture(params=[*Choice], ids=lambda choice: choice.name.lower())
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Choice:
    chosen: Choice = request.param
    if chosen is Choice.ROUND_ROBIN and round_robin.refusal():
        pytest.skip("needs CAP_BPF")
    if chosen is Choice.RANDOM:
        refusal = round_robin.Refusal("refused by a test", "nothing")
        monkeypatch.setattr(round_robin, "refusal", lambda: refusal)
    return chosen


@contextlib.contextmanager
def serving(choice: Choice, host: str = "127.0.0.1", *, backlog: int = 64) -> Iterator[Listener]:
    """Yield a listener whose last queue is never fed."""
    with opened(tcp(host, backlog=backlog)) as listener:
        listener.lease(SIZE - 1)
        listener.feed(FED[choice])
        assert listener.choice is choice
        yield listener


async def reach(listener: Listener, lease: int) -> socket.socket:
    return await asyncio.wait_for(listener.reach(lease), LIMIT)


def waiting(listener: Listener) -> list[int]:
    return [listener.waiting(n) for n in range(SIZE)]


def is_for_the_public(listener: Listener, host: str, port: int) -> bool:
    """Connect from this address and port, and tell whether a queue that is fed got it."""
    before = sum(waiting(listener)[:UNFED])
    with socket.socket(listener.queues[0].family) as client:
        client.settimeout(LIMIT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((host, port))
        client.connect(listener.queues[0].getsockname())
        return sum(waiting(listener)[:UNFED]) == before + 1 and not listener.waiting(UNFED)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "*", "localhost"])
def test_it_comes_to_its_lease_whatever_is_fed(choice: Choice, host: str) -> None:
    async def main() -> None:
        for lease in (4, 0, 3, 3, 4, 4):
            found = await reach(listener, lease)
            assert not found.getblocking()
            mine.append(found)

    mine: list[socket.socket] = []
    with serving(choice, host) as listener:
        asyncio.run(main())
        assert waiting(listener) == [1, 0, 0, 2, 3]
        listener.queues[4].settimeout(LIMIT)
        taken, peer = listener.queues[4].accept()
        assert peer[0].removeprefix("::ffff:") in ("127.0.0.1", "::1")
        assert peer[1] == mine[0].getsockname()[1]
        for each in (taken, *mine):
            each.close()


def test_many_at_once_come_each_to_its_lease(choice: Choice) -> None:
    async def main() -> list[socket.socket]:
        return await asyncio.gather(*(reach(listener, n % SIZE) for n in range(60)))

    with serving(choice) as listener:
        mine = asyncio.run(main())
        assert waiting(listener) == [12] * SIZE
        for each in mine:
            each.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_when_it_has_come_its_address_leads_where_the_public_goes(
    choice: Choice, host: str
) -> None:
    with serving(choice, host) as listener:
        with asyncio.run(reach(listener, UNFED)) as mine:
            address = mine.getsockname()[:2]
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        take(listener, UNFED)
        assert is_for_the_public(listener, *address)


def test_one_that_never_comes_is_given_up_and_leaves_no_way(choice: Choice) -> None:
    async def main() -> None:
        full = [await reach(listener, UNFED) for _ in range(2)]  # backlog + 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.reach(UNFED), 0.2)
        with contextlib.closing(await reach(listener, 3)):
            pass
        for each in full:
            each.close()

    with serving(choice, backlog=1) as listener:
        asyncio.run(main())
        assert waiting(listener) == [0, 0, 0, 1, 2]
        with connect(listener):
            assert sum(waiting(listener)[:3]) == 1


def test_a_feed_meanwhile_changes_no_way(choice: Choice) -> None:
    async def main() -> socket.socket:
        full = [await reach(listener, UNFED) for _ in range(2)]
        late = asyncio.create_task(listener.reach(UNFED))
        await asyncio.sleep(0)  # its SYN is dropped, and will be repeated in a second
        listener.feed({3: 1})
        with connect(listener):
            assert listener.waiting(3) == 1
        for each in full:
            take(listener, UNFED)
            each.close()
        return await late

    with serving(choice, backlog=1) as listener, asyncio.run(main()):
        assert listener.waiting(UNFED) == 1


@needs_bpf
def test_queues_take_their_turns_whatever_calls_come_between() -> None:
    async def main() -> Counter[int]:
        clients = []
        for _ in range(30):
            (await reach(listener, UNFED)).close()
            take(listener, UNFED)
            clients.append(connect(listener))
        found = waiting(listener)
        for each in clients:
            each.close()
        return Counter(found)

    with serving(Choice.ROUND_ROBIN) as listener:
        assert asyncio.run(main()) == {10: 3, 0: 2}


def test_calls_lose_and_mislead_no_connection_of_the_public(choice: Choice) -> None:
    async def main() -> None:
        for _ in range(40):
            (await reach(listener, UNFED)).close()
            await asyncio.to_thread(hammer.wait_for, 5)

    with (
        serving(choice) as listener,
        Server(listener.queues) as server,
        Hammer(socket.AF_INET, listener.queues[0].getsockname()) as hammer,
    ):
        del server
        asyncio.run(main())
    assert hammer.failures == {}
    assert {answer.queue for answer in hammer.answers} == FED[choice].keys()


def test_one_to_a_queue_that_was_shut_down_comes_when_it_listens_again(choice: Choice) -> None:
    with serving(choice) as listener:
        listener.queues[3].shutdown(socket.SHUT_RDWR)
        with asyncio.run(reach(listener, UNFED)):
            assert waiting(listener) == [0, 0, 0, 0, 1]


def test_the_next_manager_attaches_a_program_without_the_way(choice: Choice) -> None:
    async def main() -> None:
        full = [await reach(listener, UNFED) for _ in range(2)]
        late = asyncio.create_task(listener.reach(UNFED))
        await asyncio.sleep(0)  # its SYN is dropped, and will be repeated in a second
        was, copies = opening.written(listener), [each.dup() for each in listener.queues]
        with contextlib.closing(opening.resume(was, copies)):
            for each in full:
                take(listener, UNFED)
                each.close()
            (await late).close()
        assert not listener.waiting(UNFED)
        assert sum(waiting(listener)) == 1

    with serving(choice, backlog=1) as listener:
        asyncio.run(main())


def test_an_address_of_which_another_socket_has_a_part_is_refused(choice: Choice) -> None:
    with serving(choice, "0.0.0.0") as listener, socket.socket() as other:
        # As systemd can have bound it, or a process of our user.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", listener.queues[0].getsockname()[1]))
        other.listen()
        with pytest.raises(ListenError, match="another socket listens there"):
            asyncio.run(reach(listener, UNFED))


def test_why_there_is_no_way_is_known_before(tmp_path: Path) -> None:
    with opened(unix(tmp_path / "s")) as listener:
        assert listener.why_unreachable == listener.why_overlap
        with pytest.raises(ListenError, match="the kernel steers TCP and UDP only"):
            asyncio.run(listener.reach(0))
    with opened(tcp(scheme=Scheme.UDP)) as listener, pytest.raises(ListenError, match="datagrams"):
        asyncio.run(listener.reach(0))
    with opened(tcp()) as listener:
        assert not listener.why_unreachable


@pytest.mark.parametrize("host", ["203.0.113.1", "2001:db8::1"])  # RFC 5737, RFC 3849: nobody's
def test_an_address_that_this_host_does_not_have_is_no_way(host: str) -> None:
    with opened(tcp(host)) as listener, pytest.raises(ListenError, match="does not have"):
        asyncio.run(reach(listener, 0))
