"""The library of a Python worker: loops, coroutines, threads, and a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.worker.connections import (
    FD_VARIABLE,
    NAMES_VARIABLE,
    PACE_VARIABLE,
    Connection,
    Connections,
)
from tests.helpers.children import python, wait_for_exit, wait_until
from tests.helpers.dispatching import until


@pytest.fixture
def channel() -> Iterator[Channel]:
    with closing(Channel.create()) as made:
        yield made


@pytest.fixture
def connections(channel: Channel) -> Iterator[Connections]:
    with closing(Connections(os.dup(channel.theirs), ["http"])) as made:
        yield made


def passed(channel: Channel, count: int = 1) -> list[socket.socket]:
    """Pass so many new connections in one message, and return their clients."""
    clients = []
    servers = []
    for _ in range(count):
        client, server = socket.socketpair()
        client.settimeout(30)
        clients.append(client)
        servers.append(server)
    channel.send([server.fileno() for server in servers], bytes(count))
    for server in servers:
        server.close()
    return clients


def close(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def test_a_program_without_a_channel_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FD_VARIABLE, raising=False)
    assert Connections.inherited() is None


def test_a_program_inherits_its_channel_and_its_children_do_not(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.dup(channel.theirs)
    os.set_inheritable(fd, True)
    monkeypatch.setenv(FD_VARIABLE, str(fd))
    monkeypatch.setenv(NAMES_VARIABLE, "http:admin")
    monkeypatch.setenv(PACE_VARIABLE, "100")
    connections = Connections.inherited()
    assert connections
    with closing(connections):
        assert FD_VARIABLE not in os.environ
        assert NAMES_VARIABLE not in os.environ
        assert PACE_VARIABLE not in os.environ
        assert not os.get_inheritable(fd)
        clients = passed(channel)
        (connection,) = connections.take()
        assert connection.listener == "http"
        connection.close()
        close(clients)


def test_a_blocking_loop_serves_until_it_is_stopped_and_then_what_is_left(
    channel: Channel,
) -> None:
    program = (
        "import signal\n"
        "from sockmgr.worker.connections import Connections\n"
        "connections = Connections(3)\n"
        "signal.signal(signal.SIGTERM, lambda *_: connections.stop())\n"
        "print('up')\n"
        "for connection in connections:\n"
        "    with connection:\n"
        "        connection.sendall(connection.recv(5))\n"
        "print('over')\n"
    )
    with python(program, fds=[channel.theirs]) as child:
        assert child.line() == "up"
        first = passed(channel)
        wait_until(lambda: channel.untaken == 0, what="it has one in hand")
        left = passed(channel, 2)
        child.process.signal(signal.SIGTERM)
        for client in [*first, *left]:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        assert child.line() == "over"
        assert wait_for_exit(child.process) == 0
        close([*first, *left])
    reports = []
    while report := channel.receive():
        reports.append((report.taken, report.closed))
    assert reports[-1] == (3, 3)


def test_coroutines_serve_many_at_a_time_and_end_when_all_are_done(
    channel: Channel, connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    async def echo(connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        data = await loop.sock_recv(connection, 5)
        if data == b"break":
            raise RuntimeError("as it was told")
        await loop.sock_sendall(connection, data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(connections.serve(echo))
        clients = passed(channel, 3)
        await until(lambda: channel.untaken == 0, what="all are taken")
        connections.stop()
        await until(lambda: connections.ended, what="it takes no more")
        assert not serving.done()
        for client, word in zip(clients, (b"hello", b"break", b"world"), strict=True):
            client.setblocking(False)
            client.send(word)
        assert await loop.sock_recv(clients[0], 5) == b"hello"
        assert await loop.sock_recv(clients[1], 5) == b""
        assert await loop.sock_recv(clients[2], 5) == b"world"
        await serving
        close(clients)

    asyncio.run(main())
    assert "connection failed" in caplog.text
    report = None
    while said := channel.receive():
        report = said
    assert report
    assert (report.taken, report.closed) == (3, 3)


def test_all_that_end_in_one_turn_of_the_loop_are_told_of_at_once(
    channel: Channel, connections: Connections
) -> None:
    async def main() -> None:
        taken: list[Connection] = []
        connections.start(taken.append)
        clients = passed(channel, 20)
        await until(lambda: len(taken) == 20, what="all are taken")
        for connection in taken:
            connection.close()
        assert channel.receive() is None
        await asyncio.sleep(0)
        report = channel.receive()
        assert report
        assert report.closed == 20
        assert channel.receive() is None
        close(clients)

    asyncio.run(main())


def test_a_busy_loop_tells_at_once_and_then_of_all_that_end_in_a_while(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FD_VARIABLE, str(os.dup(channel.theirs)))
    monkeypatch.setenv(PACE_VARIABLE, "200")
    connections = Connections.inherited()
    assert connections

    async def main() -> None:
        taken: list[Connection] = []
        connections.start(taken.append)
        clients = passed(channel, 3)
        await until(lambda: len(taken) == 3, what="all are taken")
        taken.pop().close()
        await until(lambda: (said := channel.receive()) and said.closed == 1, what="the first end")
        for connection in taken:
            connection.close()
            await asyncio.sleep(0)
        assert channel.receive() is None
        await until(lambda: (said := channel.receive()) and said.closed == 3, what="the others")
        close(clients)

    with closing(connections):
        asyncio.run(main())


def test_the_end_of_the_channel_ends_the_server(connections: Connections, channel: Channel) -> None:
    async def never(connection: Connection) -> None:
        raise AssertionError(connection)

    async def main() -> None:
        serving = asyncio.create_task(connections.serve(never))
        await asyncio.sleep(0)
        channel.close()
        await serving
        assert connections.ended

    asyncio.run(main())


def test_connections_may_be_closed_by_other_threads(
    channel: Channel, connections: Connections
) -> None:
    clients = passed(channel, 40)
    taken = connections.take()
    threads = [
        threading.Thread(target=close, args=(taken[start::4],), name=f"closer {start}")
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = []
    while report := channel.receive():
        seen.append(report.closed)
    assert seen == list(range(1, 41))
    close(clients)


def test_reports_that_nobody_reads_block_nobody(channel: Channel, connections: Connections) -> None:
    clients = passed(channel, 1)
    (connection,) = connections.take()
    connection.close()
    for _ in range(1000):
        connections.end_one()
    channel.ask(5)
    count = 0
    while channel.receive():
        count += 1
    assert count < 1000
    assert connections.take() == []
    report = channel.receive()
    assert report
    assert (report.answered, report.closed) == (5, 1001)
    close(clients)
