"""Workers that turn against the sockets they were lent: neither manager nor successors suffer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.harness import Manager
from tests.e2e.programs.release import LIGHT, Release, answered
from tests.helpers.load import Load


def test_workers_that_lock_the_filter_of_their_queues_keep_nobody_from_reloading(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path, fault="locks")
    with Manager(tmp_path, release.config()) as manager:
        with Load(manager.target(), LIGHT) as load:
            for number in "234":
                release.deploy(number, fault="locks")
                assert manager.reload().code == 0
                answered(load, number, count=3)
            manager.kill9()
            manager.start()
            manager.wait_serving()
            release.deploy("5", fault="locks")
            assert manager.reload().code == 0
            answered(load, "5", count=3)
        assert not load.result.failed, load.result.failures()


def test_a_process_that_was_given_a_listener_gets_nothing_from_the_next_generations(
    tmp_path: Path,
) -> None:
    release = Release(tmp_path, fault="gives away")
    with socket.socket(socket.AF_UNIX) as receiver:
        receiver.bind(str(release.current / "receiver.sock"))
        receiver.listen()
        with Manager(tmp_path, release.config()) as manager:
            connection, _ = receiver.accept()
            with connection:
                _, (fd,), _, _ = socket.recv_fds(connection, 1, 1)
            target = manager.target()
            with socket.socket(fileno=fd) as stolen:
                stolen.setblocking(False)
                with Load(target, LIGHT) as load:
                    for number in "234":
                        release.deploy(number)
                        assert manager.reload().code == 0
                        answered(load, number, count=30)
                        with pytest.raises(OSError):  # noqa: PT011 - it is empty, or shut down
                            stolen.accept()
                assert not load.result.failed, load.result.failures()
                manager.stop()
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(target.address, timeout=5)


@pytest.mark.parametrize("keys", [(), ('accept = "per-worker"', "workers = 2")])
def test_a_worker_that_makes_its_socket_useless_as_it_ends_forbids_no_later_reload(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    release = Release(tmp_path)
    (release.current / "at_end").write_text("connect")
    with Manager(tmp_path, release.config(*keys)) as manager, Load(manager.target(), LIGHT) as load:
        for number in "23456":
            release.deploy(number)
            (release.current / "at_end").write_text("connect")
            assert manager.reload().code == 0, manager.log
            answered(load, number, count=3)
    assert not load.result.failed, load.result.failures()
