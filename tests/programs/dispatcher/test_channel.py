"""Connections go to a worker, and come back if it does not take them."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from sockmgr.kernel.rights import close_all
from sockmgr.programs.dispatcher.channel import BATCH, QUESTION, Channel, TakenBack
from sockmgr.programs.dispatcher.ledger import Forged
from tests.helpers.children import open_fds, python, wait_until
from tests.helpers.dispatching import Worker

SO_PASSPIDFD = 76  # asm-generic/socket.h


@pytest.fixture
def channel() -> Iterator[Channel]:
    with closing(Channel.create()) as made:
        yield made


@pytest.fixture
def worker(channel: Channel) -> Iterator[Worker]:
    with closing(Worker(channel, ["http", "admin"])) as made:
        yield made


def pair() -> tuple[socket.socket, socket.socket]:
    client, server = socket.socketpair()
    client.settimeout(5)
    return client, server


def test_a_connection_arrives_with_the_name_of_its_listener(
    channel: Channel, worker: Worker
) -> None:
    client, server = pair()
    with client:
        with server:
            channel.send([server.fileno()] * 2, b"\0\1")
        taken = worker.take()
        assert [each.listener for each in taken] == ["http", "admin"]
        taken[1].sendall(b"hello")
        assert client.recv(5) == b"hello"


def test_what_was_not_taken_is_counted_and_can_be_taken_back(
    channel: Channel, worker: Worker
) -> None:
    client, server = pair()
    with client, server:
        channel.send([server.fileno()] * 3, bytes(3))
        channel.send([server.fileno()], b"\1")
        channel.ask(7)
        assert channel.untaken == 4 + QUESTION
        for taken in worker.connections.take():
            taken.close()
        assert channel.untaken == 1 + QUESTION
        back = channel.take_back()
        assert back
        assert [each.listener for each in back.passed] == [1]
        os.close(back.passed[0].fd)
        assert channel.take_back() == TakenBack()
        assert channel.take_back() is None
        assert channel.untaken == 0


def test_a_full_channel_says_so_and_nothing_is_lost(channel: Channel, worker: Worker) -> None:
    client, server = pair()
    sent = 0
    with client, server:
        with contextlib.suppress(BlockingIOError):
            while True:
                channel.send([server.fileno()] * BATCH, bytes(BATCH))
                sent += BATCH
        assert channel.untaken == sent
        while back := channel.take_back():
            for each in back.passed:
                os.close(each.fd)
            sent -= len(back.passed)
    assert sent == 0
    assert worker.take() == []


def test_a_worker_that_was_killed_resets_nothing_that_it_had_not_taken(channel: Channel) -> None:
    client, server = pair()
    with client:
        with python("print('up'); input()", fds=[channel.theirs]) as child:
            assert child.line() == "up"
            with server:
                channel.send([server.fileno()], b"\0")
        back = channel.take_back()
        assert back
        with socket.socket(fileno=back.passed[0].fd) as again:
            again.sendall(b"saved")
        assert client.recv(5) == b"saved"


def test_a_question_is_answered_when_all_before_it_has_been_taken(
    channel: Channel, worker: Worker
) -> None:
    client, server = pair()
    with client, server:
        channel.send([server.fileno()] * 2, bytes(2))
        channel.ask(2**40)
    assert channel.receive() is None
    worker.take()
    report = channel.receive()
    assert report
    assert (report.answered, report.taken, report.closed) == (2**40, 2, 0)


def test_the_end_of_a_connection_is_told_once_however_it_ends(
    channel: Channel, worker: Worker
) -> None:
    client, server = pair()
    with client, server:
        channel.send([server.fileno()] * 2, bytes(2))
        first, second = worker.take()
        first.close()
        first.close()
        os.close(second.detach())
        second.close()
        reports = [channel.receive(), channel.receive()]
    assert [report and report.closed for report in reports] == [1, 2]
    assert channel.receive() is None


def test_what_a_worker_could_not_open_is_told_and_counted(channel: Channel) -> None:
    program = (
        "import os, resource, select\n"
        "from sockmgr.worker.connections import Connections\n"
        "connections = Connections(3)\n"
        "limit = len(os.listdir('/proc/self/fd')) + 1\n"  # one that is free; listing takes one
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "select.select([3], [], [])\n"
        "taken = connections.take()\n"
        "print(len(taken))\n"
        "input()\n"
    )
    client, server = pair()
    with client, server, python(program, fds=[channel.theirs]) as child:
        channel.send([server.fileno()] * 5, bytes(5))
        words = [child.line(), child.line()]
        got = next(int(line) for line in words if line.isdigit())
        assert 0 < got < 5
        assert f"{5 - got} connections lost: this process may open no more files" in words
        report = channel.receive()
        assert report
        assert (report.taken, report.lost) == (5, 5 - got)


def test_descriptors_in_a_report_are_not_ours(channel: Channel) -> None:
    with socket.socket(fileno=os.dup(channel.theirs)) as theirs:
        theirs.sendmsg(
            [bytes(32)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        )
        before = open_fds()
        assert channel.receive()
        assert open_fds() == before


def test_what_is_taken_back_brings_no_descriptor_but_connections(channel: Channel) -> None:
    client, server = pair()
    with client, server, socket.socket(fileno=os.dup(channel.theirs)) as theirs:
        try:
            theirs.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        except OSError:
            pytest.skip("this kernel passes no pidfds: Linux 6.5")
        before = open_fds()
        channel.send([server.fileno()] * 2, bytes(2))
        channel.ask(1)
        taken = channel.take_back()
        assert taken is not None
        close_all([each.fd for each in taken.passed])
        assert len(taken.passed) == 2
        assert channel.take_back() == TakenBack()
        assert open_fds() == before


@pytest.mark.parametrize(
    ("said", "why"),
    [(b"GET / HTTP/1.1\r\n", "no report"), (bytes(31), "no report"), (bytes(33), "no report")],
)
def test_garbage_is_no_report(channel: Channel, said: bytes, why: str) -> None:
    with socket.socket(fileno=os.dup(channel.theirs)) as theirs:
        theirs.send(said)
    with pytest.raises(Forged, match=why):
        channel.receive()


def test_a_worker_that_shuts_its_channel_down_is_seen(channel: Channel) -> None:
    client, server = pair()
    with client, server:
        channel.send([server.fileno()], b"\0")
        with socket.socket(fileno=os.dup(channel.theirs)) as theirs:
            theirs.shutdown(socket.SHUT_RDWR)
        with pytest.raises(Forged, match="closed its channel"):
            channel.receive()
        with pytest.raises(BrokenPipeError):
            channel.send([server.fileno()], b"\0")
        back = channel.take_back()
        assert back
        os.close(back.passed[0].fd)
        assert channel.take_back() is None


def test_a_blocking_worker_does_not_make_us_block(channel: Channel) -> None:
    os.set_blocking(channel.theirs, True)
    assert channel.take_back() is None
    assert channel.receive() is None


def test_a_worker_sees_the_end_when_no_manager_can_come_back(channel: Channel) -> None:
    program = (
        "from sockmgr.worker.connections import Connections\n"
        "for connection in Connections(3):\n"
        "    with connection:\n"
        "        connection.sendall(b'late')\n"
        "print('over')\n"
    )
    client, server = pair()
    with client, python(program, fds=[channel.theirs]) as child:
        with server:
            channel.send([server.fileno()], b"\0")
        channel.close()
        assert client.recv(4) == b"late"
        assert child.line() == "over"


def test_an_adopted_channel_goes_on_where_it_was(channel: Channel, worker: Worker) -> None:
    client, server = pair()
    with client, server:
        channel.send([server.fileno()] * 2, bytes(2))
        copies = os.dup(channel.fileno()), os.dup(channel.theirs)
        channel.close()
        with closing(Channel.adopt(*copies)) as adopted:
            adopted.send([server.fileno()], b"\0")
            assert adopted.untaken == 3
            assert len(worker.take()) == 3
            wait_until(lambda: adopted.untaken == 0, what="all are taken")
