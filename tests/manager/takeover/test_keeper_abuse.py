"""Hostile peers of a real keeper, keepers that hang or die, and what its process is like."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import signal
import socket
import stat
import threading
from pathlib import Path

import pytest

from sockmgr.errors import ControlError
from sockmgr.manager.takeover.keeper import Keeper
from tests.helpers.children import PATIENCE, children, open_fds, wait_for_exit, wait_until
from tests.helpers.keeping import (
    close_all,
    connect,
    evict,
    fds_of,
    is_readable,
    keeper,
    path,
    pipe,
    sleeping,
    take,
    take_names,
    watched,
)

__all__ = ["keeper", "path"]  # fixtures

NOBODY = 65534


# --- Who may speak with it -----------------------------------------------------------------------


def test_neither_silence_nor_garbage_stops_it_or_makes_it_grow(keeper: Keeper, path: Path) -> None:
    with contextlib.ExitStack() as stack, sleeping() as worker, pipe() as (reader, _):
        keeper.keep("web@1.0", [worker.pidfd])
        before = fds_of(keeper.pid)  # with the places for peers
        [stack.enter_context(connect(path)) for _ in range(40)]
        for garbage in (b"T", b"T2", b"=web@1.0", b"D", b"\0" * 60000, b"N", b"-web@1.0", b""):
            with connect(path) as peer:
                socket.send_fds(peer, [garbage], [reader] * 200)
                assert peer.recv(99) == b"", garbage
                assert fds_of(keeper.pid) <= before
        keeper.close()
        assert take_names(path) == ["web@1.0"]


def test_while_it_waits_for_a_manager_others_are_in_nobodys_way(keeper: Keeper, path: Path) -> None:
    with contextlib.ExitStack() as stack, sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        for garbage in (b"D", b"N", b"x" * 300):
            [stack.enter_context(connect(path)) for _ in range(10)]
            with connect(path) as peer:
                peer.send(garbage)
                assert peer.recv(99) == b""
        assert take_names(path) == ["web@1.0"]


def test_a_client_that_talks_nonsense_is_told(keeper: Keeper, path: Path) -> None:
    with sleeping() as worker, pipe() as (reader, _):
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        with connect(path) as peer:
            peer.send(b"T1")
            assert peer.recv(99) == b".%d" % keeper.pid
            before = fds_of(keeper.pid)
            for nonsense in (b"?", b"=", b"+", b"=name", b"x" * 5000):
                socket.send_fds(peer, [nonsense], [reader] if nonsense != b"=name" else [])
                assert peer.recv(99).startswith(b"!"), nonsense
            socket.send_fds(peer, [b"N"], [reader])
            assert peer.recv(99) == b"."
            assert fds_of(keeper.pid) == before
            socket.send_fds(peer, [b""], [reader])
            assert peer.recv(99) == b""
        with connect(path) as peer:
            peer.send(b"T1")
            assert peer.recv(99) == b".%d" % keeper.pid
            assert fds_of(keeper.pid) == before
        assert take_names(path) == ["web@1.0"]


def test_a_client_that_never_listens_is_let_out(keeper: Keeper, path: Path) -> None:
    with sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        with connect(path) as peer:
            peer.send(b"T1")
            with contextlib.suppress(ConnectionError):
                for _ in range(100_000):
                    peer.send(b"-nothing")
            with pytest.raises(ConnectionError):
                peer.send(b"-nothing")
        assert take_names(path) == ["web@1.0"]


def test_handing_over_is_not_mixed_with_what_is_closed_meanwhile(
    keeper: Keeper, path: Path
) -> None:
    with sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.close()
        with connect(path) as peer:
            for request in (b"T1", b"-web@1.0"):
                peer.send(request)
                assert peer.recv(99)[:1] == b"."
            peer.send(b"N")
            assert peer.recv(99) == b"."


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_gets_no_word_out_of_it(keeper: Keeper, path: Path) -> None:
    path.parent.chmod(0o711)
    path.chmod(0o666)
    with pipe() as (reader, writer):
        pid = os.fork()
        if pid == 0:
            try:
                os.chdir(path.parent)
                os.setuid(NOBODY)
                peer = connect(Path(path.name))
                with contextlib.suppress(ConnectionError):
                    peer.send(b"T1")
                with contextlib.suppress(ConnectionError):
                    os.write(writer, b"heard " + peer.recv(99))
                path.chmod(0o600)
            except PermissionError:
                os.write(writer, b"and may not")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 99) in (b"heard and may not", b"and may not")
    keeper.forget("nothing")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_nothing_is_taken_from_a_keeper_of_another_user(tmp_path: Path) -> None:
    path = tmp_path / "keeper"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        os.seteuid(NOBODY)
        try:
            listener.listen(8)
        finally:
            os.seteuid(0)
        with pytest.raises(ControlError, match=f"belongs to user {NOBODY}"):
            Keeper.take_over(path)


# --- Keepers that fail ---------------------------------------------------------------------------


def test_a_dead_keeper_is_noticed_and_another_takes_its_place(path: Path) -> None:
    keeper = Keeper.start(path)
    assert not is_readable(keeper.fileno())
    os.kill(keeper.pid, signal.SIGKILL)
    assert is_readable(keeper.fileno(), PATIENCE)
    with pytest.raises(ControlError, match="is gone"):
        keeper.keep("http", [0])
    keeper.kill()
    assert not path.exists()
    another = Keeper.start(path)
    another.keep("http", [0])
    another.dismiss()


def test_a_keeper_that_hangs_is_given_up_and_killed(path: Path) -> None:
    keeper = Keeper.start(path)
    with watched(keeper) as process:
        process.signal(signal.SIGSTOP)
        keeper.timeout = 0.05
        with pytest.raises(ControlError, match="has not answered"):
            keeper.keep("http", [0])
        assert is_readable(keeper.fileno())
        keeper.timeout = PATIENCE * 10
        with pytest.raises(ControlError, match="is gone"):
            keeper.forget("http")
        keeper.kill()
        assert is_readable(process.pidfd)
    assert not path.exists()


def test_a_keeper_that_hangs_is_dismissed_all_the_same(path: Path) -> None:
    keeper = Keeper.start(path)
    with watched(keeper) as process:
        process.signal(signal.SIGSTOP)
        keeper.timeout = 0.05
        keeper.dismiss()
        assert is_readable(process.pidfd)
    assert not path.exists()


def test_a_predecessors_keeper_that_hangs_is_an_error_until_it_is_killed(path: Path) -> None:
    keeper = Keeper.start(path)
    with watched(keeper) as process:
        process.signal(signal.SIGSTOP)
        with pytest.raises(ControlError, match=f"does not answer\n.*\n.*kill -9 {keeper.pid}"):
            Keeper.take_over(path)
        with pytest.raises(ControlError, match="listens there already"):
            Keeper.start(path)
        evict(path)
        assert is_readable(process.pidfd)
    keeper.close()
    assert Keeper.take_over(path) is None
    Keeper.start(path).dismiss()


def test_what_a_keeper_handed_over_before_it_died_is_not_thrown_away(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, pipe() as (reader, _):
        listener.bind(str(path))
        listener.listen(8)

        def hand_over_and_die() -> None:
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(99) == b"T1"
                peer.send(b".%d" % os.getpid())
                assert peer.recv(99) == b"N"
                socket.send_fds(peer, [b"=http"], [reader])

        dying = threading.Thread(target=hand_over_and_die)
        dying.start()
        keeper, held = take(path)
        dying.join()
        assert [name for name, _ in held] == ["http"]
        assert os.path.sameopenfile(held[0][1][0], reader)
        assert is_readable(keeper.fileno())
        close_all(held)
        keeper.close()


# --- Its process ---------------------------------------------------------------------------------


def test_it_is_nobodys_child_in_a_session_of_its_own_and_has_only_what_it_needs(
    path: Path,
) -> None:
    with pipe() as (reader, _):
        os.set_inheritable(reader, True)
        keeper = Keeper.start(path)
    assert keeper.pid not in children()
    assert os.getsid(keeper.pid) not in (os.getsid(0), 0)
    links = {
        int(link.name): str(link.readlink()) for link in Path(f"/proc/{keeper.pid}/fd").iterdir()
    }
    assert [links[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
    sockets = [link for link in links.values() if link.startswith("socket:")]
    assert len(sockets) == 2  # the listening one and ours
    assert set(links.values()) == {"/dev/null", "anon_inode:[pidfd]", *sockets}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keeper.dismiss()


def test_no_signal_of_a_terminal_or_a_shutdown_ends_it(keeper: Keeper) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        os.kill(keeper.pid, number)
    keeper.forget("nothing")


def patience_of(keeper: Keeper) -> int:
    """Return the timeout with which it sleeps in poll(2); 0 if it is not there."""
    call = Path(f"/proc/{keeper.pid}/syscall").read_text().split()
    return int(call[3], 16) & 0xFFFFFFFF if call[0] == "7" else 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the number of poll there")
def test_it_sleeps_until_something_happens_and_a_second_if_it_can_let_nobody_in(
    keeper: Keeper, path: Path
) -> None:
    wait_until(lambda: patience_of(keeper) == 0xFFFFFFFF, what="sleep without an end")
    before = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (3, 20000))
    with connect(path):
        wait_until(lambda: patience_of(keeper) == 1000, what="a second's sleep")
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: patience_of(keeper) == 0xFFFFFFFF, what="sleep without an end")


def test_nothing_leaks(path: Path, tmp_path: Path) -> None:
    before, others = open_fds(), children()
    keeper = Keeper.start(path)
    keeper.keep("http", [0, 1])
    with watched(keeper) as process:
        keeper.close()
        wait_for_exit(process)
    keeper = Keeper.start(path)
    with sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd])
        steady = fds_of(keeper.pid)
        for _ in range(10):
            keeper.keep("web@1.0", [worker.pidfd])
            keeper.close()
            keeper, held = take(path)
            close_all(held)
        assert fds_of(keeper.pid) == steady
    keeper.dismiss()
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == []
    assert children() <= others


# --- Its path ------------------------------------------------------------------------------------


def test_a_dead_keepers_path_is_taken_and_a_living_ones_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    assert Keeper.take_over(path) is None
    keeper = Keeper.start(path)
    with pytest.raises(ControlError, match="a process listens there already"):
        Keeper.start(path)
    keeper.forget("nothing")
    keeper.dismiss()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keeper"
    path.write_text("precious")
    with pytest.raises(ControlError, match="not a socket"):
        Keeper.start(path)
    assert Keeper.take_over(path) is None
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["missing/keeper", "x" * 120])
def test_a_path_that_cannot_be_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    before = open_fds()
    with pytest.raises(ControlError, match=name):
        Keeper.start(tmp_path / name)
    assert open_fds() == before
