"""What survivors of a dead manager still hold, and what forbids to take it from them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from sockmgr.errors import ListenError
from sockmgr.kernel.survivors import hindrance, take_back
from tests.helpers.children import open_fds

NOBODY = 65534
SO_COOKIE = 57  # asm-generic/socket.h
PIDFD_GETFD = 438
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22


@pytest.fixture
def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def holding(*socks: socket.socket) -> subprocess.Popen[bytes]:
    program = "import sys; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        pass_fds=[sock.fileno() for sock in socks],
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


def test_all_queues_of_a_group_come_back_and_nothing_else() -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
        address = first.getsockname()
        others = [
            stack.enter_context(socket.create_server(address, reuse_port=True)) for _ in range(2)
        ]
        stack.enter_context(holding(first, *others))
        unwanted = stack.enter_context(socket.socket())
        survivor = stack.enter_context(holding(*others, unwanted))
        pidfd = os.pidfd_open(survivor.pid)
        stack.callback(os.close, pidfd)
        before = open_fds()
        found = take_back(
            survivor.pid, pidfd, [os.fstat(sock.fileno()).st_ino for sock in (first, *others)]
        )
        for other in others:
            with socket.socket(fileno=found.pop(os.fstat(other.fileno()).st_ino)) as again:
                option = socket.SOL_SOCKET, SO_COOKIE, 8
                assert again.getsockopt(*option) == other.getsockopt(*option)
        assert not found
        assert open_fds() == before


def test_what_is_another_socket_by_now_is_not_taken(listener: socket.socket) -> None:
    with holding(listener) as survivor, socket.socket() as other:
        pidfd = os.pidfd_open(os.getpid())
        before = open_fds()
        wanted = os.fstat(listener.fileno()).st_ino
        # The links are those of one process, the descriptors those of ours: each is another socket.
        os.dup2(other.fileno(), listener.fileno())
        assert take_back(survivor.pid, pidfd, {wanted}) == {}
        assert len(open_fds()) == len(before)
        listener.close()
        assert take_back(survivor.pid, pidfd, {wanted}) == {}
        os.close(pidfd)


@contextlib.contextmanager
def failing(prepare: Callable[[], None], survivor: int, inode: int) -> Iterator[ListenError]:
    """Prepare a child, in which taking back must fail, and return what it is told there."""
    reader, writer = os.pipe()
    pidfd = os.pidfd_open(survivor)
    child = os.fork()
    if child == 0:
        try:
            prepare()
            os.close(reader)
            free = os.dup(0)
            os.close(free)
            take_back(survivor, pidfd, {inode})
        except ListenError as error:
            assert os.dup(0) == free, "it leaks"
            os.write(writer, "\n".join([error.what, error.means, error.do]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.close(pidfd)
    os.waitpid(child, 0)
    with open(reader) as words:  # noqa: PTH123
        what, means, do = words.read().split("\n")
    yield ListenError(what, means=means, do=do)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_one_that_may_not_is_told_whose_the_worker_is(listener: socket.socket) -> None:
    with (
        holding(listener) as survivor,
        failing(
            lambda: os.setresuid(NOBODY, NOBODY, NOBODY),
            survivor.pid,
            os.fstat(listener.fileno()).st_ino,
        ) as error,
    ):
        assert f"belongs to user 0, and we are {NOBODY}" in error.what
        assert "CAP_SYS_PTRACE" in error.do
    listener.close()


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSYS, "is missing, or"), (errno.EPERM, "seccomp filter forbids")]
)
def test_one_in_a_container_that_forbids_it_is_told(
    listener: socket.socket, code: int, words: str
) -> None:
    with (
        holding(listener) as survivor,
        failing(
            lambda: forbid(PIDFD_GETFD, code), survivor.pid, os.fstat(listener.fileno()).st_ino
        ) as error,
    ):
        assert words in error.what
    listener.close()


@pytest.mark.parametrize(
    ("code", "scope", "what", "do"),
    [
        (errno.EPERM, "1", "ptrace_scope is 1", "CAP_SYS_PTRACE"),
        (errno.EACCES, "2", "ptrace_scope is 2", "CAP_SYS_PTRACE"),
        (errno.EPERM, "3", "forbids it to everybody", "end the old workers"),
        (errno.EMFILE, "1", "too many open files", "LimitNOFILE="),
        (errno.EIO, "0", "Input/output error", "start again"),
    ],
)
def test_the_value_that_forbids_it_is_told(code: int, scope: str, what: str, do: str) -> None:
    reason, remedy = hindrance(code, uid=os.geteuid(), scope=scope)
    assert what in reason
    assert do in remedy


def forbid(number: int, code: int) -> None:
    """Have a system call fail from now on: seccomp(2), a classic BPF program on its number."""
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | code),
               (0x06, 0, 0, 0x7FFF0000)]  # fmt: skip
    code_bytes = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code_bytes)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) == 0
    assert libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.c_char_p(header), zero, zero) == 0
