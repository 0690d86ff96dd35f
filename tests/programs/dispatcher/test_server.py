"""The dispatcher as a process: who it obeys, what it says, and when it ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sockmgr.kernel.queues import inode
from sockmgr.manager.dispatch.process import command
from sockmgr.programs.dispatcher import messages
from sockmgr.programs.dispatcher.channel import Channel
from sockmgr.programs.dispatcher.messages import PROTOCOL, Message
from tests.helpers.children import PATIENCE, Child, python, running, wait_for_exit
from tests.helpers.dispatching import Worker, listening
from tests.helpers.proc import sleeps

WAITS = "import signal; signal.pause()"  # a process that lives until it is killed


class Played:
    """A manager that the test plays, and the dispatcher that it has started."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.connection, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(self.connection)
        self.connection.settimeout(PATIENCE)
        with its:
            fds = [its.fileno(), self.connection.fileno()]
            self.child: Child = stack.enter_context(running(command("1.2"), fds=fds))

    def says(self, do: str, fds: Sequence[int] = (), /, **about: Any) -> None:
        messages.send(self.connection, messages.write({"do": do, **about}), fds)

    def greets(self, *, epoch: int = 1, last: bool = False, process: int | None = None) -> Message:
        """Say hello as the manager of that pidfd, which is this process itself without one."""
        pidfd = os.pidfd_open(os.getpid()) if process is None else os.dup(process)
        self.says("hello", [pidfd], protocol=PROTOCOL, epoch=epoch, last=last)
        os.close(pidfd)
        return self.hears("here")

    def hears(self, what: str) -> Message:
        """Return the next message of that kind."""
        while True:
            message, fds = self.hears_anything()
            for fd in fds:
                os.close(fd)
            if message["is"] == what:
                return message

    def hears_anything(self) -> tuple[Message, list[int]]:
        with contextlib.suppress(ConnectionResetError):  # told once if it ended
            self.connection.recv(1, socket.MSG_PEEK)  # receive() does not wait
        heard = messages.receive(self.connection)
        assert heard
        return heard

    def dispatches(self, listener: socket.socket, *, most: int | None = None) -> None:
        """Have connections of a listener passed on, for a service that has no worker."""
        self.says("service", service="web", policy="round-robin", most=most)
        queue = inode(listener)
        self.says("queue", [listener.fileno()], service="web", key="http", queue=queue)
        self.says("listen", service="web", queues=[queue])

    def attaches(self, channel: Channel, process: int | None = None) -> None:
        """Attach, and feed, a worker with lease 0; the process is a pidfd."""
        fds = [channel.fileno(), channel.theirs, *(() if process is None else (process,))]
        about: dict[str, Any] = {"keys": ["http"], "channel": channel.id, "new": False}
        self.says("attach", fds, service="web", lease=0, name="web@1.0", left=False, **about)
        self.says("feed", service="web", parts=[[{0: 1}, ["http"]]])

    def worker(self) -> Worker:
        """Return a worker that takes connections; its process is one that the test can kill."""
        channel = self.stack.enter_context(contextlib.closing(Channel.create()))
        worker = self.stack.enter_context(contextlib.closing(Worker(channel, ["http"])))
        self.process: Child = self.stack.enter_context(python(WAITS))
        self.attaches(channel, self.process.process.pidfd)
        self.connection.settimeout(0.005)
        while True:
            worker.take()
            with contextlib.suppress(TimeoutError):
                self.hears("takes")
                break
        self.connection.settimeout(PATIENCE)
        self.channel = channel
        return worker

    def counts(self) -> Message:
        self.says("ask", number=1, counts=True)
        return self.hears("counts")

    def has_ended(self) -> bool:
        return wait_for_exit(self.child.process) == 0


@pytest.fixture
def manager() -> Iterator[Played]:
    with contextlib.ExitStack() as stack:
        yield Played(stack)


def client_of(listener: socket.socket) -> socket.socket:
    client = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
    client.sendall(b"x")
    return client


def test_it_answers_a_hello_and_what_it_says_has_the_epoch_of_the_last_one(manager: Played) -> None:
    about = manager.greets(epoch=7)
    assert about == {
        "is": "here", "protocol": PROTOCOL, "version": "1.2", "pid": manager.child.pid, "epoch": 7,
    }  # fmt: skip
    assert manager.greets(epoch=8)["epoch"] == 8
    manager.says("ask", number=3, counts=False)
    assert manager.hears("answer") == {"is": "answer", "number": 3, "epoch": 8}


def test_it_needs_no_more_than_12_megabytes_and_does_not_wake_up_when_nothing_happens(
    manager: Played,
) -> None:
    with listening() as listener:
        manager.greets()
        manager.dispatches(listener)
        worker = manager.worker()
        with client_of(listener):
            while not worker.has(1):
                pass
            manager.counts()
            lines = Path(f"/proc/{manager.child.pid}/smaps_rollup").read_text().splitlines()
            [pss] = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
            assert pss < 12 * 1024
            # Two seconds after the last connection it looks once more whether that was taken.
            while not sleeps(manager.child.pid):
                pass


def test_a_second_manager_goes_on_with_what_it_names_and_the_rest_is_let_go(
    manager: Played,
) -> None:
    with listening() as listener, listening() as other:
        manager.greets()
        manager.dispatches(listener)
        worker = manager.worker()
        manager.says("service", service="old", policy="round-robin", most=None)
        with client_of(listener):
            while not worker.has(1):
                pass
            manager.greets(epoch=2)
            manager.dispatches(listener)
            manager.attaches(manager.channel)
            manager.says("settled")
            assert manager.hears("takes")["lease"] == 0  # without being asked again
            manager.says("ask", number=5, counts=True)
            counts = manager.hears("counts")
            assert (counts["service"], counts["accepted"], counts["open"]) == ("web", 1, {"0": 1})
            assert manager.hears_anything()[0]["is"] == "answer"  # and nothing of the old service
            with client_of(listener):
                while not worker.has(2):
                    pass
            assert other.getsockname()


def test_it_serves_on_without_a_manager_until_the_last_worker_has_ended(manager: Played) -> None:
    with listening() as listener, python(WAITS) as process:
        manager.greets(process=process.process.pidfd)
        manager.dispatches(listener)
        worker = manager.worker()
        process.process.signal(9)
        wait_for_exit(process.process)
        with client_of(listener):
            while not worker.has(1):
                pass
        manager.process.process.signal(9)
        assert manager.has_ended()


def test_it_ends_with_its_manager_when_no_worker_lives_or_no_manager_can_come(
    manager: Played,
) -> None:
    with listening() as listener, python(WAITS) as first, python(WAITS) as last:
        manager.greets(process=first.process.pidfd)
        manager.dispatches(listener)
        manager.worker()
        manager.greets(process=last.process.pidfd, last=True)
        first.process.signal(9)
        manager.says("ask", number=1, counts=False)
        manager.hears("answer")
        last.process.signal(9)
        assert manager.has_ended()


def test_one_that_was_started_by_a_manager_that_is_dead_by_now_ends_at_once() -> None:
    with contextlib.ExitStack() as stack:
        with python(WAITS) as dead:
            pidfd = os.dup(dead.process.pidfd)
        manager = Played(stack)
        manager.says("hello", [pidfd], protocol=PROTOCOL, epoch=1, last=False)
        os.close(pidfd)
        assert manager.has_ended()


def test_what_waits_for_a_worker_that_died_goes_to_others_though_there_is_no_manager(
    manager: Played,
) -> None:
    with listening() as listener, python(WAITS) as process:
        manager.greets(process=process.process.pidfd)
        manager.dispatches(listener, most=1)
        worker = manager.worker()
        with client_of(listener):
            while manager.counts()["open"] != {"0": 1}:
                pass
            other = Channel.create()
            manager.stack.callback(other.close)
            about: dict[str, Any] = {"keys": ["http"], "channel": other.id, "new": True}
            fds = [other.fileno(), other.theirs, process.process.pidfd]
            manager.says("attach", fds, service="web", lease=1, name="b", left=False, **about)
            manager.says("feed", service="web", parts=[[{0: 1, 1: 1}, ["http"]]])
            successor = Worker(other, ["http"])
            manager.stack.callback(successor.close)
            while successor.take() or manager.counts()["open"].get("1") is None:
                pass
            manager.process.process.signal(9)
            while not successor.has(1):
                pass
            assert not worker.take()


def test_one_that_is_to_make_way_accepts_no_more_and_gives_back_what_it_holds(
    manager: Played,
) -> None:
    with listening() as listener:
        with client_of(listener):
            held, _ = listener.accept()  # now, since the dispatcher would accept it as well
            manager.greets()
            manager.dispatches(listener)
            manager.worker()
            with held:
                manager.says("feed", service="web", parts=[])
                manager.says("connections", [held.fileno()], service="web", key="http")
            manager.says("release")
            while (heard := manager.hears_anything())[0]["is"] != "held":
                pass
            assert (heard[0]["service"], heard[0]["key"]) == ("web", "http")
            with socket.socket(fileno=heard[1][0]) as again:
                assert again.recv(1) == b"x"
            manager.hears("released")
        with client_of(listener), listener.accept()[0] as waited:
            assert waited.recv(1) == b"x"
        manager.says("end")
        assert manager.has_ended()


def test_one_that_made_way_goes_on_if_its_manager_dies_before_another_has_all(
    manager: Played,
) -> None:
    with listening() as listener, python(WAITS) as process:
        manager.greets(process=process.process.pidfd)
        manager.dispatches(listener)
        worker = manager.worker()
        manager.says("release")
        manager.hears("released")
        with client_of(listener):
            process.process.signal(9)
            while not worker.has(1):
                pass


def test_what_it_has_no_descriptors_for_is_refused_and_what_it_has_goes_on(
    manager: Played,
) -> None:
    import resource  # noqa: PLC0415 - of another process, by its pid

    with listening() as listener:
        manager.greets()
        manager.dispatches(listener)
        worker = manager.worker()
        limits = resource.prlimit(manager.child.pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{manager.child.pid}/fd").iterdir()))
        resource.prlimit(manager.child.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        with contextlib.closing(Channel.create()) as more:
            about: dict[str, Any] = {"keys": ["http"], "channel": more.id, "new": True}
            fds = [more.fileno(), more.theirs]
            manager.says("attach", fds, service="web", lease=1, name="b", left=False, **about)
            assert "too many open files" in manager.hears("refused")["why"]
            resource.prlimit(manager.child.pid, resource.RLIMIT_NOFILE, limits)
            with client_of(listener):
                while not worker.has(1):
                    pass
