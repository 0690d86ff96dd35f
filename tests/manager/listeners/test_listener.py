"""A listener as its manager uses it: leases, switches, quiet queues, adoption."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets
from sockmgr.manager.listeners import opening
from tests.helpers.hammer import Hammer, Server
from tests.helpers.listeners import (
    connect,
    hold_handshake,
    open_fds,
    opened,
    quiet,
    take,
    tcp,
    unix,
)

# --- Leases and switches -------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_listener_is_steered_from_lease_to_lease(host: str) -> None:
    with opened(tcp(host)) as listener:
        assert (listener.cutover, listener.why_overlap) == ("steered", "")
        for lease in (0, 3, 1):
            assert listener.lease(lease) == listener.queues[lease].fileno()
            listener.feed({lease: 1})
            with connect(listener):
                assert listener.queued() == 1
                take(listener, lease)
        assert len(listener.queues) == 4
        assert listener.address == sockets.describe(listener.queues[3])
        assert len({listener.inode(n) for n in range(4)}) == 4


def test_feeding_nothing_leaves_connections_where_they_went() -> None:
    with opened(tcp()) as listener:
        listener.feed({1: 1})
        listener.feed({})
        assert listener.fed == {1: 1}
        with connect(listener):
            take(listener, 1)


def test_a_queue_that_cannot_be_opened_is_an_error_and_the_others_go_on() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(tcp()) as listener:
        last = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, before[1]))
        try:
            with pytest.raises(ListenError, match="cannot open another queue on tcp://127"):
                listener.lease(3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            os.close(last)
        assert len(listener.queues) == 1
        listener.feed({3: 1})
        with connect(listener):
            take(listener, 3)


def test_the_queue_peak_is_remembered_once() -> None:
    with opened(tcp()) as listener:
        clients = [connect(listener) for _ in range(3)]
        listener.sample()
        for client in clients:
            take(listener, 0)
            client.close()
        assert listener.queued() == 0
        assert listener.take_peak() == 3
        assert listener.take_peak() == 0


def test_nothing_is_left_after_close(tmp_path: Path) -> None:
    before = open_fds()
    for listen in (tcp(), tcp(scheme=Scheme.UDP), unix(tmp_path / "s")):
        with opened(listen) as listener:
            listener.lease(3)
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == []


# --- Quiet ---------------------------------------------------------------------------------------


def test_a_queue_is_not_quiet_until_what_waits_in_it_is_accepted() -> None:
    async def scenario() -> None:
        with opened(tcp()) as listener:
            clients = [connect(listener) for _ in range(2)]
            listener.feed({1: 1})
            waiting = asyncio.create_task(quiet(listener, 0))
            for _ in clients:
                await asyncio.wait([waiting], timeout=0.2)
                assert not waiting.done()
                take(listener, 0)
            await asyncio.wait_for(waiting, 5)
            for client in clients:
                client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("host", "caller"),
    [
        ("127.0.0.1", ("127.0.0.1", socket.AF_INET)),
        ("::1", ("::1", socket.AF_INET6)),
        ("::", ("127.0.0.1", socket.AF_INET)),
        ("::", ("::1", socket.AF_INET6)),
    ],
)
def test_a_queue_is_not_quiet_while_a_handshake_that_began_before_goes_on(
    host: str, caller: tuple[str, int]
) -> None:
    async def scenario() -> None:
        with opened(tcp(host)) as listener, socket.socket(caller[1]) as client:
            listener.lease(1)
            hold_handshake(client, (caller[0], listener.queues[0].getsockname()[1]))
            listener.feed({1: 1})
            waiting = asyncio.create_task(quiet(listener, 0))
            await asyncio.wait([waiting], timeout=0.3)
            assert not waiting.done()
            client.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
            # The kernel repeats its SYN-ACK one second after the first.
            while not listener.queued():  # noqa: ASYNC110 - seen by asking only
                await asyncio.sleep(0.01)
            assert queues.queued(listener.queues[0]) == 1  # it ends in the old queue
            await asyncio.wait([waiting], timeout=0.2)
            assert not waiting.done()
            take(listener, 0)
            await asyncio.wait_for(waiting, 5)
            assert listener.queues[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) == 5

    asyncio.run(scenario())


def test_a_handshake_that_never_ends_keeps_a_queue_busy_for_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "sockmgr.manager.listeners.queue_drain.GIVEN_UP", 90.0
    )  # it ends, and is not given up

    async def scenario() -> None:
        with opened(tcp()) as listener, socket.socket() as client:
            hold_handshake(client, listener.queues[0].getsockname())
            listener.lease(1)
            listener.feed({1: 1})
            began = time.monotonic()
            # 7 s, for the client repeats its SYN; 64 s by default.
            await asyncio.wait_for(quiet(listener, 0), 30)
            assert time.monotonic() - began > 1

    asyncio.run(scenario())


def test_handshakes_begun_after_the_switch_do_not_delay_it() -> None:
    async def scenario() -> None:
        with opened(tcp()) as listener, Server() as server:
            listener.lease(1)
            for number in (0, 1):
                server.add(listener.queues[number], number)
            with Hammer(socket.AF_INET, listener.queues[0].getsockname()) as hammer:
                hammer.wait_for(50)
                for turn in range(20):
                    listener.feed({1 - turn % 2: 1})
                    await asyncio.wait_for(quiet(listener, turn % 2), 5)
                    assert queues.queued(listener.queues[turn % 2]) == 0
            assert hammer.failures == {}

    asyncio.run(scenario())


def test_the_loop_goes_on_while_a_queue_becomes_quiet() -> None:
    async def scenario() -> float:
        with opened(tcp()) as listener:
            listener.feed({1: 1})
            waiting = asyncio.create_task(quiet(listener, 0))
            longest, last = 0.0, not_for_want_of_a_processor()
            while not waiting.done():
                await asyncio.sleep(0.0005)
                now = not_for_want_of_a_processor()
                longest, last = max(longest, now - last), now
            return longest

    def not_for_want_of_a_processor() -> float:
        """Return a time that stands still while others have all processors (schedstat, proc(5))."""
        _, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
        return time.monotonic() - int(waited) / 1e9

    # membarrier(2) and the dump block for 10 and 20 ms.
    assert min(asyncio.run(scenario()) for _ in range(10)) < 0.01


def test_a_udp_queue_is_quiet_when_its_datagrams_are_read() -> None:
    async def scenario() -> None:
        with opened(tcp(scheme=Scheme.UDP)) as listener:
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.sendto(b"x", listener.queues[0].getsockname())
            listener.feed({1: 1})
            waiting = asyncio.create_task(quiet(listener, 0))
            await asyncio.wait([waiting], timeout=0.2)
            assert not waiting.done()
            listener.queues[0].recv(9)
            await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_a_udp_queue_has_no_backlog_of_connections() -> None:
    with opened(tcp(scheme=Scheme.UDP)) as listener:
        assert queues.backlog(listener.queues[0]) == 0


# --- Overlap -------------------------------------------------------------------------------------


def test_a_unix_listener_has_one_queue_for_every_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        with opened(unix(tmp_path / "s")) as listener:
            assert listener.cutover == "overlap"
            assert "unix" in listener.why_overlap
            assert listener.lease(0) == listener.lease(7)
            assert listener.inode(0) == listener.inode(7)
            listener.feed({7: 1})
            with connect(listener):
                await asyncio.wait_for(quiet(listener, 0), 5)
                assert listener.queued() == 1
            assert listener.address == f"unix://{tmp_path / 's'}"

    asyncio.run(scenario())


# --- Adoption ------------------------------------------------------------------------------------


def test_a_single_inherited_socket_is_steered_without_a_stray_under_load() -> None:
    sock = sockets.bind(tcp(), reuse_port=False)
    address = sock.getsockname()
    with Server([sock]) as server, Hammer(socket.AF_INET, address) as hammer:
        hammer.wait_for(50)
        with contextlib.closing(opening.adopt(tcp(), [sock])) as listener:
            assert listener.cutover == "steered"
            hammer.wait_for(50)
            server.add(listener.queues[1], 1)
            assert {answer.queue for answer in hammer.answers} == {0}
            listener.feed({1: 1})
            hammer.wait_for(50)
            assert hammer.answers[-1].queue == 1
            hammer.__exit__(None, None, None)
            assert hammer.failures == {}


def test_a_pool_from_systemd_keeps_its_order() -> None:
    first = sockets.bind(tcp(), reuse_port=True)
    second = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        second.setsockopt(socket.SOL_SOCKET, option, 1)
    second.bind(first.getsockname())
    second.listen()
    with contextlib.closing(opening.adopt(tcp(), [second, first])) as listener:
        assert listener.cutover == "steered"
        for lease in (0, 1, 2):
            listener.feed({lease: 1})
            with connect(listener):
                take(listener, lease)
        assert listener.queues[:2] == (second, first)


def test_a_pool_that_serves_is_taken_over_without_misleading_a_connection() -> None:
    with opened(tcp()) as before, Server() as server:
        before.feed({2: 1})
        for number in range(3):
            server.add(before.queues[number], number)
        with Hammer(socket.AF_INET, before.queues[0].getsockname()) as hammer:
            hammer.wait_for(100)
            socks = [queue.dup() for queue in before.queues]
            with contextlib.closing(opening.resume(opening.written(before), socks)) as after:
                hammer.wait_for(100)
                assert after.fed == {2: 1}
        assert hammer.failures == {}
        assert {answer.queue for answer in hammer.answers} == {2}


def test_the_queue_that_most_connections_went_to_before_is_the_one_that_is_fed() -> None:
    with opened(tcp()) as before:
        before.feed({0: 1})
        with connect(before):
            before.feed({1: 1})
            with connect(before), connect(before):
                socks = [queue.dup() for queue in before.queues]
                with contextlib.closing(opening.adopt(tcp(), socks)) as after:
                    assert after.fed == {1: 1}
                    assert list(opening.left_at(after).items()) == [(1, 2), (0, 1)]
                    take(after, 1)
                    take(after, 1)
            take(before, 0)


def test_no_queue_counts_as_filled_by_others_if_nobody_is_in_it_or_on_the_way() -> None:
    """Else a reload right after the start finds none that it may use."""
    with opened(tcp()) as before:
        before.feed({2: 1})
        socks = [queue.dup() for queue in before.queues]
        with contextlib.closing(opening.adopt(tcp(), socks)) as after:
            assert opening.left_at(after) == {0: 0}
            with socket.socket() as client:
                hold_handshake(client, after.queues[0].getsockname())
                assert opening.left_at(after) == {0: 0, 1: 0, 2: 0}


def test_a_listener_of_our_own_has_no_queue_that_others_filled() -> None:
    with opened(tcp()) as listener, connect(listener):
        assert opening.left_at(listener) == {}
        take(listener, 0)


def test_a_listener_may_be_closed_while_a_queue_becomes_quiet() -> None:
    async def scenario() -> None:
        with opened(tcp()) as listener, connect(listener):
            listener.feed({1: 1})
            waiting = asyncio.create_task(quiet(listener, 0))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_sockets_that_are_no_group_are_not_adopted_as_one() -> None:
    with (
        sockets.bind(tcp(), reuse_port=True) as one,
        sockets.bind(tcp(), reuse_port=True) as other,
        pytest.raises(ListenError, match="not one group"),
    ):
        opening.adopt(tcp(), [one, other])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket of another user")
def test_a_socket_of_another_user_is_served_with_an_overlap_that_says_how_to_mend_it() -> None:
    program = """if True:
        import os, socket, sys
        sys.path.insert(0, os.getcwd())
        import encodings.idna, asyncio
        from sockmgr.config.spec import Address, Listen, Scheme
        from sockmgr.kernel import sockets
        from sockmgr.manager.listeners import opening

        listen = Listen(name="http", address=Address(scheme=Scheme.TCP, host="127.0.0.1"))
        sock = sockets.bind(listen, reuse_port=False)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        listener = opening.adopt(listen, [sock])
        print(listener.cutover, listener.why_overlap)
        with socket.create_connection(sock.getsockname()):
            print(listener.queued(), listener.lease(5) == sock.fileno())
        listener.close()
    """
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("overlap the socket belongs to uid 0 and this process is uid 65534")
    assert "ReusePort=yes" in first
    assert second == "1 True"


def test_an_inherited_fd_can_be_opened_closed_and_opened_again() -> None:
    with sockets.bind(tcp(), reuse_port=False) as inherited:
        listen = Listen(name="http", address=Address(scheme=Scheme.FD, fd=inherited.fileno()))
        for _ in range(2):
            with opened(listen) as listener:
                listener.feed({1: 1})
                with connect(listener):
                    take(listener, 1)
