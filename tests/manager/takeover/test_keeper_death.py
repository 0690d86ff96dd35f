"""Real managers that are killed, and a real keeper that has everything they held."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from sockmgr.errors import ControlError
from sockmgr.kernel.process import Process
from sockmgr.manager.takeover.keeper import Keeper
from tests.helpers.children import PATIENCE, open_fds, python, wait_for_exit
from tests.helpers.keeping import (
    close_all,
    is_readable,
    keeper,
    path,
    sleeping,
    take,
    take_names,
    watched,
)

__all__ = ["keeper", "path"]  # fixtures

SO_COOKIE = 57  # asm-generic/socket.h

# A manager that keeps a listener, a pipe that holds a line, and a worker, and then does nothing.
MANAGER = """
import os, socket, sys
from pathlib import Path
from sockmgr.manager.takeover.keeper import Keeper

keeper = Keeper.start(Path({path!r}))
listener = socket.create_server(("127.0.0.1", 0))
reader, writer = os.pipe()
worker = os.posix_spawn("/bin/sleep", ["sleep", "600"], {{}})
os.write(writer, b"last words")
keeper.keep("http#0", [listener.fileno()])
keeper.keep("web@1.0", [os.pidfd_open(worker), reader])
os.close(writer)
print(keeper.pid, worker, listener.getsockname()[1], os.fstat(listener.fileno()).st_ino)
sys.stdin = open(os.pipe()[0])
sys.stdin.read()
"""


def test_what_a_killed_manager_held_comes_back_with_the_connections_that_wait(path: Path) -> None:
    with contextlib.ExitStack() as stack, python(MANAGER.format(path=str(path))) as manager:
        pid, worker, port, inode = map(int, manager.line().split())
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port)))]
        manager.process.signal(signal.SIGKILL)
        wait_for_exit(manager.process)
        clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)

        keeper, held = take(path)
        assert keeper.pid == pid
        assert [name for name, _ in held] == ["http#0", "web@1.0"]
        [[fd], [pidfd, reader]] = [fds for _, fds in held]
        listener = stack.enter_context(socket.socket(fileno=fd))
        assert os.fstat(fd).st_ino == inode
        for number in range(len(clients)):
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(99) == b"%d" % number
        assert os.read(reader, 99) == b"last words"
        assert not is_readable(pidfd)
        os.kill(worker, signal.SIGKILL)
        assert is_readable(pidfd, PATIENCE)
        assert not any(os.get_inheritable(each) for _, fds in held for each in fds)
        os.close(pidfd)
        os.close(reader)
        keeper.dismiss()


def test_a_socket_comes_back_as_the_same_socket(keeper: Keeper, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener, sleeping() as worker:
        keeper.keep("http#0", [listener.fileno()])
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        successor, held = take(path)
        with socket.socket(fileno=dict(held)["http#0"][0]) as again:
            assert again.fileno() != listener.fileno()
            for option in (SO_COOKIE, socket.SO_ACCEPTCONN, socket.SO_REUSEPORT):
                mine, its = (s.getsockopt(socket.SOL_SOCKET, option, 8) for s in (listener, again))
                assert mine == its
        os.close(dict(held)["web@1.0"][0])
        successor.dismiss()


def test_the_next_manager_may_be_killed_as_well(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(python(MANAGER.format(path=str(path))))
        _, worker, *_ = map(int, first.line().split())
        first.process.signal(signal.SIGKILL)
        wait_for_exit(first.process)
        program = f"""
import sys, os
from pathlib import Path
from sockmgr.manager.takeover.keeper import Keeper
keeper, held = Keeper.take_over(Path({str(path)!r}))
reader, writer = os.pipe()
keeper.keep("admin", [reader])
print([name for name, _ in held])
os.read(reader, 1)
"""
        second = stack.enter_context(python(program))
        assert second.line() == "['http#0', 'web@1.0']"
        with pytest.raises(ControlError, match="serves another manager"):
            Keeper.take_over(path)
        second.process.signal(signal.SIGKILL)
        wait_for_exit(second.process)
        assert take_names(path) == ["http#0", "web@1.0", "admin"]
        assert take_names(path) == ["http#0", "web@1.0", "admin"]
        os.kill(worker, signal.SIGKILL)


# A manager whose connection its child has as well, as every child has for an instant.
SHARING = """
import os
from pathlib import Path
from sockmgr.manager.takeover.keeper import Keeper
keeper = Keeper.start(Path({path!r}))
os.set_inheritable(keeper.fileno(), True)
child = os.posix_spawn("/bin/sleep", ["sleep", "600"], {{}})
{then}
print(keeper.pid, child)
os.read(os.pipe()[0], 1)
"""


def test_a_dead_managers_connection_in_a_child_of_it_is_in_nobodys_way(path: Path) -> None:
    keep = 'keeper.keep("web@1.0", [os.pidfd_open(child)])'
    with python(SHARING.format(path=str(path), then=keep)) as manager:
        _, child = map(int, manager.line().split())
        manager.process.signal(signal.SIGKILL)
        wait_for_exit(manager.process)
        assert take_names(path) == ["web@1.0"]
        os.kill(child, signal.SIGKILL)


def test_it_notices_the_death_of_a_manager_whose_child_has_the_connection(path: Path) -> None:
    with python(SHARING.format(path=str(path), then="")) as manager:
        pid, child = map(int, manager.line().split())
        process = Process(pid)
        manager.process.signal(signal.SIGKILL)
        wait_for_exit(process)
        process.close()
        os.kill(child, signal.SIGKILL)


def test_what_a_manager_said_right_before_its_death_is_done(keeper: Keeper, path: Path) -> None:
    program = f"""
import os, select, socket
def say(name):
    socket.send_fds(peer, [b"=" + name], [os.pidfd_open(os.getppid())])
peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
peer.connect({str(path)!r})
peer.send(b"T1")
peer.recv(99)
say(b"web@1.0")
select.select([peer], [], [])
os.kill({keeper.pid}, 19)
say(b"web@1.1")
say(b"web@1.2")
print("said")
os.read(os.pipe()[0], 1)
"""
    with sleeping() as worker, watched(keeper) as process:
        keeper.keep("web@0.0", [worker.pidfd])
        keeper.close()
        with python(program) as manager:
            assert manager.line() == "said"
            manager.process.signal(signal.SIGKILL)
            wait_for_exit(manager.process)
        process.signal(signal.SIGCONT)
        assert take_names(path) == ["web@0.0", "web@1.0", "web@1.1", "web@1.2"]


def test_what_is_let_go_is_free_even_if_a_child_has_the_connection(
    keeper: Keeper, path: Path
) -> None:
    with sleeping() as worker, socket.socket(fileno=os.dup(keeper.fileno())):
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        assert take_names(path) == ["web@1.0"]


def test_the_second_of_two_takers_is_refused_and_the_first_has_everything(
    keeper: Keeper, path: Path
) -> None:
    with sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        first, held = take(path)
        with pytest.raises(ControlError, match="serves another manager"):
            Keeper.take_over(path)
        first.keep("http", [worker.pidfd])
        close_all(held)
        first.dismiss()


def test_a_manager_that_replaces_itself_by_exec_goes_on_with_its_keeper(path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from sockmgr.manager.takeover.keeper import Keeper
path = Path({str(path)!r})
if len(sys.argv) > 1:
    keeper = Keeper.resume(int(sys.argv[1]), path)
    assert not os.get_inheritable(keeper.fileno())
    keeper.keep("after", [1])
    keeper.keep("web@1.0", [os.pidfd_open(os.getppid())])
    print(keeper.pid)
    os.read(os.pipe()[0], 1)
keeper = Keeper.start(path)
keeper.keep("before", [1])
print(keeper.pid)
os.set_inheritable(keeper.fileno(), True)
os.execv(sys.executable, [sys.executable, "-u", "-c", sys.orig_argv[3], str(keeper.fileno())])
"""
    with python(program) as manager:
        assert manager.line() == manager.line()
        manager.process.signal(signal.SIGKILL)
        wait_for_exit(manager.process)
        assert take_names(path) == ["before", "after", "web@1.0"]


def test_resuming_what_is_lost_is_an_error_and_closes_the_descriptor(path: Path) -> None:
    before = open_fds()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with pytest.raises(ControlError, match="cannot resume"):
        Keeper.resume(ours.detach(), path)
    assert open_fds() == before
