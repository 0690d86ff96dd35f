"""A listener that is to be closed: nobody comes any more, and who waits is waited for."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from sockmgr.config.spec import OnStop
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from tests.helpers.listeners import connect, hold_handshake, opened, quiet, take, tcp, unix

ESTABLISHED, SYN_SENT, CLOSED = 1, 2, 7  # net/tcp_states.h
DETACH_FILTER = 27
LOCK_FILTER = 44  # SO_LOCK_FILTER, socket(7)


def state(client: socket.socket) -> int:
    return struct.unpack_from("B", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]


def knock(client: socket.socket, listener: Listener) -> None:
    client.setblocking(False)
    client.connect_ex(listener.queues[0].getsockname())


def test_no_handshake_begins_and_those_that_have_begun_come_to_their_end() -> None:
    with opened(tcp()) as listener, connect(listener), socket.socket() as half:
        hold_handshake(half, listener.queues[0].getsockname())
        listener.refuse()
        with socket.socket() as late:
            knock(late, listener)  # on loopback it is answered before this returns, if ever
            assert state(late) == SYN_SENT
        assert listener.queued() == 1
        half.setsockopt(socket.SOL_SOCKET, DETACH_FILTER, 0)
        take(listener, 0)
        take(listener, 0)  # waits for the answer to the repeated SYN-ACK


def test_one_whose_sockets_take_no_filter_is_admitted_again_all_the_same() -> None:
    with opened(tcp()) as listener:
        for queue in listener.queues:
            queue.setsockopt(socket.SOL_SOCKET, LOCK_FILTER, 1)
        listener.refuse()
        assert listener.is_refusing
        listener.admit()
        with connect(listener) as client:
            assert state(client) == ESTABLISHED


@pytest.mark.parametrize("end", [Listener.refuse, Listener.end])
def test_no_queue_is_renewed_at_which_clients_would_wait_for_nobody(
    end: Callable[[Listener], None],
) -> None:
    with opened(tcp()) as listener, socket.socket() as late:
        listener.lease(1)
        end(listener)
        listener.renew(1)  # a generation has ended
        knock(late, listener)
        assert listener.queued() == 0
        assert state(late) != ESTABLISHED


def test_one_that_is_configured_again_takes_clients_again(tmp_path: Path) -> None:
    for listen in (tcp(), unix(tmp_path / "s")):
        with opened(listen) as listener:
            listener.refuse()
            listener.admit()
            connect(listener).close()


def test_the_next_manager_knows_that_it_is_to_be_closed() -> None:
    with opened(tcp()) as listener:
        listener.refuse()
        again = opening.resume(
            opening.written(listener), [queue.dup() for queue in listener.queues]
        )
        again.admit()
        again.close()
        connect(listener).close()


def test_nobody_finds_a_unix_socket_any_more_and_who_waits_there_is_waited_for(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with opened(unix(tmp_path / "s")) as listener, connect(listener):
            listener.refuse()
            assert not listener.inspect()  # its path is not missed
            with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
                late.connect(listener.listen.address.path)
            waiting = asyncio.create_task(quiet(listener, 3, 5))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            take(listener, 3)
            await asyncio.wait_for(waiting, 20)

    asyncio.run(scenario())


def test_in_a_stop_a_client_is_refused_at_once_or_left_to_try_again() -> None:
    for on_stop, then in ((OnStop.REFUSE, CLOSED), (OnStop.DROP, SYN_SENT)):
        with opened(replace(tcp(), on_stop=on_stop)) as listener, connect(listener):
            listener.end()
            with socket.socket() as late:
                knock(late, listener)
                assert state(late) == then
            assert listener.queued() == 1
            take(listener, 0)  # who waits can still be answered


def test_of_systemds_queues_one_that_no_worker_has_is_left_to_the_next_start() -> None:
    async def scenario() -> None:
        with opened(tcp()) as listener:
            listener.lease(3)  # and three that are ours
            listener.systemds.update({0, 1, 2})
            with connect(listener):
                listener.end(held={0, 3})
                with connect(listener), connect(listener):
                    assert [listener.waiting(n) for n in range(4)] == [1, 2, 0, 0]
                    assert [listener.is_left_to_others(n) for n in range(4)] == [False, True] + [
                        False
                    ] * 2
                    assert not listener.unfinished(1)
                    waiting = asyncio.create_task(quiet(listener, 0, 3))
                    await asyncio.sleep(0.05)
                    assert not waiting.done()
                    take(listener, 0)
                    await asyncio.wait_for(waiting, 20)
                    assert listener.waiting(1) == 2

    asyncio.run(scenario())


def test_of_systemds_queues_none_takes_anybody_if_systemd_closes_them_as_well() -> None:
    with opened(tcp()) as listener, connect(listener), socket.socket() as late:
        listener.lease(1)
        listener.systemds.update({0, 1})
        listener.is_last = True
        listener.end(held={0})
        knock(late, listener)
        assert state(late) == CLOSED
        assert not any(map(listener.is_left_to_others, (0, 1)))
        take(listener, 0)


def test_a_unix_listener_that_systemd_took_over_is_left_to_the_next_start(tmp_path: Path) -> None:
    """Its queue is systemd's, whatever the queue that its path led to before was called."""

    async def scenario() -> None:
        path = tmp_path / "s"
        with opened(unix(path)) as before, socket.socket(socket.AF_UNIX) as systemds:
            was, old = opening.written(before), before.queues[0].dup()
            path.unlink()
            systemds.bind(str(path))
            systemds.listen()
            listeners = Listeners(lambda _: None)
            listeners.resume([was], {"http#0": [old], "http": [systemds.dup()]})
            listener = listeners.at(was.listen.address)
            assert listener.systemds == {0}
            listener.end()
            assert listener.is_left_to_others(0)
            assert listener.unfinished(0) == ()
            listeners.close_unused(())

    asyncio.run(scenario())
