"""What is heard on NOTIFY_SOCKET, from whom, and what cannot do harm there."""

from __future__ import annotations

import array
import contextlib
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.errors import ListenError
from sockmgr.kernel.notify import MAX_AT_ONCE, MAX_SIZE, Message, NotifySocket
from sockmgr.kernel.procfs import owner_of
from tests.helpers.children import Child, open_fds, python, wait_until
from tests.helpers.notifying import SAY


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    sock = NotifySocket(tmp_path / "notify")
    yield sock
    sock.close()


def say(notify: NotifySocket, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(notify.path))
        for data in datagrams:
            sock.send(data)


def heard(notify: NotifySocket) -> list[Message]:
    """Return what comes next; wait for it."""
    watch = select.poll()
    watch.register(notify, select.POLLIN)
    assert watch.poll(30_000), "nothing came"
    return notify.receive()


def speaker(notify: NotifySocket, program: str) -> contextlib.AbstractContextManager[Child]:
    return python(SAY + program, env=os.environ | {"NOTIFY_SOCKET": str(notify.path)})


def test_a_message_carries_its_fields_and_the_senders_pid_and_uid(notify: NotifySocket) -> None:
    with speaker(notify, "say(b'READY=1\\nSTATUS=up: a=b\\nX_ODD=\\n')") as child:
        (message,) = heard(notify)
        assert message.pid == child.pid
        assert message.uid == os.getuid()
        assert message.fields == {"READY": "1", "STATUS": "up: a=b", "X_ODD": ""}


def test_nothing_to_hear_is_no_wait(notify: NotifySocket) -> None:
    assert notify.receive() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"READY",
        b"=1",
        b"READY=1\nrubbish",
        b"READY=1\n\nSTATUS=x",
        b"A B=1",
        b"READY=\xff",
        b"READY=1\0",
        bytes(range(256)),
        b"READY=1\nSTATUS=" + b"x" * MAX_SIZE,
    ],
)
def test_garbage_is_counted_and_ignored(data: bytes, notify: NotifySocket) -> None:
    say(notify, data, b"READY=1")
    messages = [*notify.receive(), *notify.receive()]  # one that is too long ends a portion
    assert [message.fields for message in messages] == [{"READY": "1"}]
    assert notify.garbage == 1


def test_messages_stay_in_the_socket_until_the_next_call(notify: NotifySocket) -> None:
    """They are the next manager's if this one is killed before it has noted them."""
    say(notify, b"READY=1", b"", b"STATUS=" + b"x" * MAX_SIZE, b"STOPPING=1")
    assert [message.fields for message in notify.receive()] == [{"READY": "1"}]
    with socket.socket(fileno=os.dup(notify.fileno())) as left:
        after = NotifySocket(notify.path, left)
        assert [message.fields for message in after.receive()] == [{"READY": "1"}]
    assert [message.fields for message in notify.receive()] == [{"STOPPING": "1"}]
    assert notify.receive() == []
    assert notify.garbage == 2


def test_a_datagram_of_the_greatest_size_is_heard(notify: NotifySocket) -> None:
    say(notify, b"STATUS=" + b"x" * (MAX_SIZE - 7))
    assert len(notify.receive()[0].fields["STATUS"]) == MAX_SIZE - 7


def test_a_flood_is_heard_in_portions(notify: NotifySocket) -> None:
    with speaker(notify, "print('go')\nwhile True: say(b'STATUS=x')") as child:
        child.line()
        portions = [len(heard(notify)) for _ in range(50)]
    assert 0 < max(portions) <= MAX_AT_ONCE


def test_garbage_floods_end_too(notify: NotifySocket) -> None:
    with speaker(notify, "print('go')\nwhile True: say(b'rubbish')") as child:
        child.line()
        while notify.garbage < 1000:
            before = notify.garbage
            assert heard(notify) == []
            assert notify.garbage <= before + MAX_AT_ONCE


def test_descriptors_that_come_along_are_not_kept(notify: NotifySocket) -> None:
    before = open_fds()
    with speaker(notify, "r, w = os.pipe(); say(b'READY=1', *[r] * 250)\nsignal.pause()"):
        (message,) = heard(notify)
        assert message.fields == {"READY": "1"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for _ in range(5):
            fds = array.array("i", [0, 1, 2]).tobytes()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
            sock.sendmsg([b"rubbish"], ancillary, 0, str(notify.path))
            assert notify.receive() == []
    assert open_fds() == before


def test_a_barrier_is_answered_only_after_what_was_said_before_it(notify: NotifySocket) -> None:
    reader, writer = os.pipe()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(str(notify.path))
            sock.send(b"READY=1")
            socket.send_fds(sock, [b"BARRIER=1"], [writer])
            sock.send(b"STATUS=after")
        os.close(writer)
        watch = select.poll()
        watch.register(reader, 0)
        said = [message.fields for message in notify.receive()]
        assert said == [{"READY": "1"}, {"STATUS": "after"}]
        assert not watch.poll(0), "answered before the message was dealt with"
        assert notify.receive() == []
        assert watch.poll(0), "not answered"
        assert notify.garbage == 0
    finally:
        os.close(reader)


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="systemd-notify is not installed")
def test_systemd_notify_of_a_shell_script_is_heard(notify: NotifySocket) -> None:
    program = "import subprocess; print(subprocess.run(['systemd-notify', '--ready']).returncode)"
    with speaker(notify, program) as child:
        (message,) = heard(notify)
        assert message.fields["READY"] == "1"
        assert owner_of(message.pid, {child.pid}) == child.pid
        wait_until(lambda: notify.receive() or _ended(child.pid), what="its end")
        assert child.line() == "0"


def _ended(pid: int) -> bool:
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


# --- The path ----------------------------------------------------------------------------------


def test_every_user_may_write_to_it(notify: NotifySocket) -> None:
    mode = notify.path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_worker_of_another_user_is_heard_with_its_uid() -> None:
    # Not below tmp_path, which other users may not enter.
    directory = Path(f"/tmp/sockmgr-test-{os.getpid()}")
    directory.mkdir(mode=0o755)
    notify = NotifySocket(directory / "notify")
    try:
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.setuid(65534)
                say(notify, b"READY=1")
            os._exit(0)
        (message,) = heard(notify)
        os.waitpid(pid, 0)
        assert (message.pid, message.uid) == (pid, 65534)
    finally:
        notify.close()
        directory.rmdir()


def test_a_path_left_by_a_former_manager_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(tmp_path / "notify"))
    notify = NotifySocket(tmp_path / "notify")
    say(notify, b"READY=1")
    assert notify.receive()[0].fields == {"READY": "1"}
    notify.close()
    assert not notify.path.exists()


def test_closing_leaves_the_path_of_a_successor(tmp_path: Path) -> None:
    first = NotifySocket(tmp_path / "notify")
    second = NotifySocket(tmp_path / "notify")
    first.close()
    say(second, b"READY=1")
    assert second.receive()
    second.close()


def test_a_path_that_cannot_be_used_is_told_with_its_reason(tmp_path: Path) -> None:
    before = open_fds()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ListenError, match="something that is not a socket is there"):
        NotifySocket(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(ListenError, match="No such file or directory"):
        NotifySocket(tmp_path / "no" / "notify")
    with pytest.raises(ListenError, match="too long"):
        NotifySocket(tmp_path / ("x" * 200))
    assert open_fds() == before


# --- Whose word it is --------------------------------------------------------------------------


def test_a_worker_and_its_descendants_belong_to_it(notify: NotifySocket) -> None:
    program = """
say(b"KIND=worker")
if os.fork() == 0:
    say(b"KIND=child")
    if os.fork() == 0:
        os.setsid()  # its own group and session
        say(b"KIND=grandchild of another group")
signal.pause()
"""
    with speaker(notify, program) as child:
        messages: list[Message] = []
        while len(messages) < 3:
            messages += heard(notify)
        assert {message.fields["KIND"] for message in messages} == {
            "worker",
            "child",
            "grandchild of another group",
        }
        assert {owner_of(message.pid, {child.pid}) for message in messages} == {child.pid}
        for message in messages:  # it cannot be killed with its group
            if "grandchild" in message.fields["KIND"]:
                os.kill(message.pid, 9)


def test_an_orphan_in_the_workers_session_belongs_to_it(notify: NotifySocket) -> None:
    program = """
if os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent: time.sleep(0.001)
        say(b"KIND=orphan")
        signal.pause()
    os._exit(0)
os.wait()
signal.pause()
"""
    with speaker(notify, program) as child:
        (message,) = heard(notify)
        assert message.pid != child.pid
        assert owner_of(message.pid, {child.pid}) == child.pid


def test_nobody_else_belongs_to_a_worker(notify: NotifySocket) -> None:
    with speaker(notify, "signal.pause()") as worker, speaker(notify, "say(b'READY=1')") as other:
        (message,) = heard(notify)
        assert message.pid == other.pid
        assert not owner_of(message.pid, {worker.pid})
        assert not owner_of(os.getpid(), {worker.pid})
        assert not owner_of(1, {worker.pid})
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not owner_of(gone.pid, {worker.pid})
