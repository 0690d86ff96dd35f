"""What workers do to a listener that they share, and that it is mended and told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from pathlib import Path

import pytest

from sockmgr.config.spec import Address, Listen, Scheme
from sockmgr.kernel import queues, sockets
from sockmgr.kernel.steering import classic
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.repair import Damage, Remedy
from tests.helpers.hammer import Hammer, Server
from tests.helpers.listeners import connect, opened, quiet, readable, take, tcp, unix


def found(listener: Listener) -> list[tuple[Damage, Remedy]]:
    return [(finding.damage, finding.remedy) for finding in listener.inspect()]


def told(listener: Listener) -> list[str]:
    return list(map(str, listener.inspect()))


def test_the_watch_is_silent_under_traffic_and_wakes_at_a_shutdown() -> None:
    with opened(tcp()) as listener, Server() as server:
        listener.lease(1)
        server.add(listener.queues[0], 0)
        with Hammer(socket.AF_INET, listener.queues[0].getsockname()) as hammer:
            hammer.wait_for(300)
            assert not readable(listener.watch_fd())
        with socket.socket(fileno=os.dup(listener.lease(1))) as worker:
            worker.shutdown(socket.SHUT_RDWR)
        for _ in range(2):
            assert readable(listener.watch_fd(), 5)
            assert told(listener) == [
                "listener http: a worker shut the socket down; it listens again"
            ]
            assert not readable(listener.watch_fd())
            assert listener.inspect() == []
            listener.queues[0].shutdown(socket.SHUT_RDWR)
        assert len(listener.inspect()) == 1


@pytest.mark.parametrize("down", [(0,), (1,), (2,), (2, 0), (0, 1, 2)])
def test_after_a_shutdown_the_fed_lease_is_fed_again(down: tuple[int, ...]) -> None:
    with opened(tcp()) as listener:
        listener.lease(2)
        listener.feed({1: 1})
        for number in down:
            listener.queues[number].shutdown(socket.SHUT_RDWR)
        assert found(listener) == [(Damage.SHUT_DOWN, Remedy.RESTORED)]
        for lease in (1, 0, 2):
            if lease != 1:
                listener.feed({lease: 1})
            with connect(listener):
                take(listener, lease)


def test_a_queue_that_is_down_when_another_joins_does_not_mix_up_the_leases() -> None:
    with opened(tcp()) as listener:
        listener.lease(1)
        listener.queues[0].shutdown(socket.SHUT_RDWR)
        for lease in (2, 0, 1):
            listener.feed({lease: 1})
            with connect(listener):
                take(listener, lease)
        assert told(listener) == ["listener http: a worker shut the socket down; it listens again"]


def test_a_socket_whose_port_was_taken_is_told_once_and_mended_when_free() -> None:
    with opened(tcp()) as listener, socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.queues[0].shutdown(socket.SHUT_RDWR)
        thief.bind(listener.queues[0].getsockname())
        thief.listen()
        assert found(listener) == [(Damage.SHUT_DOWN, Remedy.NONE)]
        assert listener.inspect() == []
        listener.lease(0)
        assert listener.inspect() == []
        thief.close()
        assert found(listener) == [(Damage.SHUT_DOWN, Remedy.RESTORED)]


def test_a_backlog_that_a_worker_shrank_is_mended_and_one_that_it_raised_is_left() -> None:
    with opened(tcp()) as listener:
        listener.lease(1)
        listener.queues[1].listen(5)
        assert told(listener) == ["listener http: a worker shrank the backlog to 5; it is 64 again"]
        listener.queues[1].listen(100)
        assert listener.inspect() == []
        assert [queues.backlog(queue) for queue in listener.queues] == [64, 100]


def test_a_backlog_above_somaxconn_is_not_mended_for_ever() -> None:
    with opened(tcp(backlog=1_000_000)) as listener:
        assert listener.inspect() == []


def test_a_unix_path_that_a_worker_removed_is_back_with_the_same_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(unix(path)) as listener:
        lease, node = listener.lease(0), path.stat()
        for _ in range(2):
            path.unlink()
            assert told(listener) == [f"listener http: a worker removed {path}; it is there again"]
            assert (path.stat().st_ino, path.stat().st_mode) == (node.st_ino, node.st_mode)
            with connect(listener):
                take(listener, 0)
        assert listener.lease(0) == lease
        assert listener.inspect() == []
    assert list(tmp_path.iterdir()) == []


def test_a_unix_path_is_bound_anew_if_no_name_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(unix(path)) as listener:
        old = listener.queues[0]
        with connect(listener):
            for name in tmp_path.iterdir():
                name.unlink()
            assert found(listener) == [(Damage.PATH_LOST, Remedy.REPLACED)]
            assert listener.inspect() == []
            # What waits in the old socket can still be accepted by those who have it.
            assert listener.queued() == 1
            old.accept()[0].close()
            assert listener.queued() == 0
        assert old.fileno() >= 0
        assert listener.inspect() == []
        assert old.fileno() < 0
        assert path.stat().st_mode & 0o777 == 0o600
        with connect(listener):
            take(listener, 0)
        path.unlink()
        assert found(listener) == [(Damage.PATH_LOST, Remedy.RESTORED)]


def test_a_unix_path_with_a_dead_socket_of_another_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(unix(path)) as listener:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
        assert told(listener) == [f"listener http: a worker replaced {path}; it is there again"]
        with connect(listener):
            take(listener, 0)


def test_a_unix_path_that_another_serves_or_keeps_a_file_at_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(unix(path)) as listener:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            assert found(listener) == [(Damage.PATH_TAKEN, Remedy.NONE)]
            assert listener.inspect() == []
        path.unlink()
        path.write_text("precious")
        assert listener.inspect() == []
        assert path.read_text() == "precious"
        path.unlink()
        assert found(listener) == [(Damage.PATH_LOST, Remedy.RESTORED)]
        with connect(listener):
            take(listener, 0)
        path.unlink()
        path.mkdir()
        assert found(listener) == [(Damage.PATH_TAKEN, Remedy.NONE)]
    assert path.is_dir()


def test_a_unix_socket_that_was_shut_down_is_bound_anew_over_its_path(tmp_path: Path) -> None:
    with opened(unix(tmp_path / "s")) as listener:
        with socket.socket(fileno=os.dup(listener.lease(0))) as worker:
            worker.shutdown(socket.SHUT_RDWR)
        assert readable(listener.watch_fd(), 5)
        assert found(listener) == [(Damage.SHUT_DOWN, Remedy.REPLACED)]
        with connect(listener):
            take(listener, 0)
        assert listener.inspect() == []
        assert not readable(listener.watch_fd())
        listener.queues[0].shutdown(socket.SHUT_RDWR)
        assert readable(listener.watch_fd(), 5)
        assert len(listener.inspect()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_belongs_to_another_now_survives_the_close_of_the_listener(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        with opened(unix(path)):
            path.unlink()
            other.bind(str(path))
        assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_went_away_with_the_path_is_told_and_mended_when_it_is_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run" / "s"
    path.parent.mkdir()
    with opened(unix(path)) as listener:
        shutil.rmtree(path.parent)
        assert found(listener) == [(Damage.PATH_LOST, Remedy.NONE)]
        assert listener.inspect() == []
        path.parent.mkdir()
        assert found(listener) == [(Damage.PATH_LOST, Remedy.REPLACED)]
        with connect(listener):
            take(listener, 0)


def test_an_adopted_socket_whose_path_is_gone_is_bound_anew(tmp_path: Path) -> None:
    sock = sockets.bind(unix(tmp_path / "s"), reuse_port=False)
    (tmp_path / "s").unlink()
    with contextlib.closing(opening.adopt(unix(tmp_path / "s"), [sock])) as listener:
        assert found(listener) == [(Damage.PATH_LOST, Remedy.REPLACED)]
        with connect(listener):
            take(listener, 0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]  # whose it is, nobody knows


def test_an_abstract_socket_that_was_shut_down_is_told_once() -> None:
    name = f"sockmgr-listener-{os.getpid()}"
    listen = Listen(name="http", address=Address(scheme=Scheme.ABSTRACT, path=name))
    with opened(listen) as listener:
        listener.queues[0].shutdown(socket.SHUT_RDWR)
        assert found(listener) == [(Damage.SHUT_DOWN, Remedy.NONE)]
        assert listener.inspect() == []
        assert not readable(listener.watch_fd())


def test_a_reload_under_load_loses_nothing_whatever_a_worker_does_to_idle_queues() -> None:
    async def scenario() -> None:
        with opened(tcp()) as listener, Server() as server:
            listener.lease(1)
            for number in (0, 1):
                server.add(listener.queues[number], number)
            with Hammer(socket.AF_INET, listener.queues[0].getsockname()) as hammer:
                for turn in range(30):
                    old, new = turn % 2, 1 - turn % 2
                    listener.feed({new: 1})
                    await quiet(listener, old)
                    listener.queues[old].listen(5)
                    assert len(listener.inspect()) == 1
                    hammer.wait_for(10)
            assert hammer.failures == {}

    asyncio.run(scenario())


def test_a_socket_that_can_never_listen_again_is_replaced_by_a_new_one() -> None:
    with opened(tcp()) as listener, socket.create_server(("127.0.0.1", 0)) as there:
        port = listener.queues[0].getsockname()[1]
        with socket.socket(fileno=os.dup(listener.lease(0))) as lent:
            lent.shutdown(socket.SHUT_RDWR)
            lent.connect(there.getsockname())
            before = listener.inode(0)
            assert found(listener) == [(Damage.SHUT_DOWN, Remedy.REPLACED)]
            assert listener.inode(0) != before
            assert listener.queues[0].getsockname()[1] == port
        assert listener.inspect() == []
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            assert listener.queued() == 1


def test_a_program_that_a_worker_attached_to_get_all_connections_is_replaced() -> None:
    with opened(tcp()) as listener:
        listener.feed({1: 1})
        classic.steer(listener.queues[0], classic.choice({0: 1}))
        assert listener.inspect() == []
        with socket.create_connection(listener.queues[0].getsockname(), timeout=5):
            assert [queues.queued(queue) for queue in listener.queues] == [0, 1]


def test_a_lease_that_changes_hands_is_a_new_queue_and_the_old_one_hears_nothing() -> None:
    with opened(tcp()) as listener:
        listener.lease(2)
        address, before = listener.queues[0].getsockname(), [listener.inode(n) for n in range(3)]
        listener.feed({1: 1})
        with socket.socket(fileno=os.dup(listener.lease(0))) as kept:
            listener.renew(0)
            assert not queues.is_listening(kept)
        assert [listener.inode(n) == before[n] for n in range(3)] == [False, True, True]
        assert not listener.inspect()
        for lease in (0, 2, 1):
            listener.feed({lease: 1})
            clients = [socket.create_connection(address, timeout=5) for _ in range(5)]
            assert queues.queued(listener.queues[lease]) == 5
            for client in clients:
                client.close()


def test_no_connection_is_lost_or_misled_while_leases_change_hands() -> None:
    with opened(tcp()) as listener, Server() as server:
        listener.lease(3)
        listener.feed({3: 1})
        server.add(listener.queues[3], 3)
        with Hammer(socket.AF_INET, listener.queues[3].getsockname()) as hammer:
            for turn in range(60):
                listener.renew(turn % 3)
                hammer.wait_for(10)
        assert hammer.failures == {}
        assert {answer.queue for answer in hammer.answers} == {3}


def test_what_systemd_holds_as_well_is_not_shut_down_when_it_changes_hands() -> None:
    with opened(tcp()) as listener:
        listener.systemds.update({0})
        listener.lease(1)
        before = listener.inode(0)
        listener.feed({1: 1})
        listener.renew(0)
        assert listener.inode(0) == before
        assert queues.is_listening(listener.queues[0])
