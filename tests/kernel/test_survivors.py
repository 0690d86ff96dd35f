from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from sockmgr.core.errors import ListenError
from sockmgr.kernel.survivors import take_back


@pytest.fixture
def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def holding(sock: socket.socket) -> subprocess.Popen[bytes]:
    program = "import sys; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        pass_fds=[sock.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_what_waits_in_a_socket_that_only_a_survivor_holds_comes_back_with_it(
    listener: socket.socket,
) -> None:
    inode, address = os.fstat(listener.fileno()).st_ino, listener.getsockname()
    with holding(listener) as survivor:
        listener.close()
        with socket.create_connection(address) as client:
            client.sendall(b"still here")
            pidfd = os.pidfd_open(survivor.pid)
            found = take_back(survivor.pid, pidfd, {inode, 1})
            os.close(pidfd)
            assert list(found) == [inode]
            assert not os.get_inheritable(found[inode])
            with socket.socket(fileno=found[inode]) as again, again.accept()[0] as connection:
                assert connection.recv(99) == b"still here"
        survivor.kill()


def test_of_one_that_has_ended_nothing_is_left_to_take(listener: socket.socket) -> None:
    inode = os.fstat(listener.fileno()).st_ino
    with holding(listener) as survivor:
        pidfd = os.pidfd_open(survivor.pid)
        survivor.kill()
        survivor.wait()
        assert take_back(survivor.pid, pidfd, {inode}) == {}
        os.close(pidfd)
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_one_that_may_not_is_told_what_forbids_it(listener: socket.socket) -> None:
    inode = os.fstat(listener.fileno()).st_ino
    with holding(listener) as survivor:
        pidfd = os.pidfd_open(survivor.pid)
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            try:
                take_back(survivor.pid, pidfd, {inode})
            except ListenError as error:
                told = "ptrace" in error.what and "CAP_SYS_PTRACE" in error.do
                os._exit(0 if told else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(pidfd)
        survivor.kill()
    listener.close()
