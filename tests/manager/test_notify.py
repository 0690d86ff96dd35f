"""Whose word on the notify socket is believed, and what it costs to find out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from sockmgr.kernel.notify import NotifySocket
from sockmgr.kernel.procfs import MOST_ANCESTORS, ancestors, owner_of
from sockmgr.manager import notify as module
from sockmgr.manager.notify import NotifyRouter
from sockmgr.manager.workers.family import Family
from sockmgr.manager.workers.worker import WorkerProcess
from tests.helpers.children import Child, python
from tests.helpers.notifying import SAY
from tests.helpers.work import calls

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user: run as root")
OTHER = 65534


class Worker:
    """What a Running is to a Mailbox."""

    def __init__(self, pid: int, user: int) -> None:
        self.pid, self.user = pid, user
        self.heard: list[Mapping[str, str]] = []

    def may_be(self, user: int) -> bool:
        return user in (0, self.user)

    def notified(self, sender: int, fields: Mapping[str, str]) -> bool:
        del sender
        self.heard.append(fields)
        return "READY" in fields


@contextlib.contextmanager
def router(
    path: Path, family: Family, save: Callable[[], None] = lambda: None
) -> Iterator[NotifyRouter]:
    """Open one of a loop that does not turn: the test says when it looks."""
    runner = asyncio.Runner()

    async def opened() -> NotifyRouter:
        return NotifyRouter(path, None, family, save)

    with runner:
        box = runner.run(opened())

        async def close() -> None:
            box.close()

        try:
            yield box
        finally:
            runner.run(close())


def delivered(
    path: Path, program: str, worker: Callable[[Child], Worker], **more: Any
) -> tuple[Worker, Child]:
    """Run a program that says something, and return the worker to whom it was delivered, or not."""
    family = Family()
    with router(path, family) as box:
        env = os.environ | {"NOTIFY_SOCKET": str(path)}
        with python(SAY + program + "\nprint('said', flush=True)\nsignal.pause()", env=env,
                    **more) as child:  # fmt: skip
            assert child.line() == "said"
            told = worker(child)
            family.join_worker(cast("WorkerProcess", told))
            box.deliver()
            return told, child


def test_what_a_worker_says_is_delivered_to_it(tmp_path: Path) -> None:
    worker, _ = delivered(tmp_path / "n", "say(b'READY=1')", lambda c: Worker(c.pid, os.getuid()))
    assert worker.heard == [{"READY": "1"}]


def test_what_a_worker_says_once_stays_in_the_socket_until_it_is_saved(tmp_path: Path) -> None:
    """Whoever is killed before that leaves it to the next manager, which has the same socket."""
    family, path = Family(), tmp_path / "n"
    left: list[list[Mapping[str, str]]] = []
    with router(path, family, lambda: left.append(unread(box))) as box:
        program = "say(b'STATUS=x')\nsay(b'READY=1')\nprint('said', flush=True)\nsignal.pause()"
        with python(SAY + program, env=os.environ | {"NOTIFY_SOCKET": str(path)}) as child:
            assert child.line() == "said"
            family.join_worker(cast("WorkerProcess", Worker(child.pid, os.getuid())))
            box.deliver()
            box.deliver()
        assert left == [[{"STATUS": "x"}, {"READY": "1"}]]
        assert unread(box) == []


def unread(box: NotifyRouter) -> list[Mapping[str, str]]:
    """Return what the next manager would hear."""
    with socket.socket(fileno=os.dup(box.fileno())) as left:
        return [message.fields for message in NotifySocket("/", left).receive()]


@as_root
def test_a_message_of_another_user_is_dropped_before_anybody_asks_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "owner_of", lambda pid, _: asked.append(pid) or 0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o711)
    program = f"os.setuid({OTHER})\nsay(b'READY=1')"
    worker, _ = delivered(tmp_path / "n", program, lambda c: Worker(c.pid, 12345))
    assert (worker.heard, asked) == ([], [])


def test_who_joined_the_process_group_of_a_worker_does_not_belong_to_it() -> None:
    """In one session anybody may, setpgid(2); so workers have sessions of their own."""
    with python("import time; print(1, flush=True); time.sleep(60)") as worker:
        worker.line()
        with python(f"import os; os.setpgid(0, {worker.pid})") as other:
            assert "PermissionError" in other.rest()
        assert not owner_of(os.getpid(), {worker.pid})


def test_not_more_ancestors_are_looked_at_than_any_worker_has() -> None:
    program = f"""
import os, time
for _ in range({MOST_ANCESTORS + 20}):
    if os.fork():
        time.sleep(60)
os.setsid()
print(os.getpid(), flush=True)
time.sleep(60)
"""
    with python(program) as child:
        deep = int(child.line())
        assert len(list(ancestors(deep))) == MOST_ANCESTORS
        assert owner_of(deep, {child.pid}) == 0
        os.kill(deep, 9)


def test_a_message_costs_the_same_however_many_workers_there_are(tmp_path: Path) -> None:
    def work(workers: int) -> int:
        family = Family()
        for n in range(workers):
            family.join_worker(cast("WorkerProcess", Worker((1 << 22) + n, os.getuid())))
        family.join_worker(cast("WorkerProcess", worker := Worker(os.getpid(), os.getuid())))
        with (
            router(tmp_path / "n", family) as box,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.connect(str(tmp_path / "n"))
            sock.send(b"READY=1")
            cost = calls(box.deliver)
        assert worker.heard == [{"READY": "1"}]
        return cost

    assert work(500) == work(5)


def test_a_flood_costs_a_look_at_each_sender_and_not_at_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "owner_of", lambda pid, _: asked.append(pid) or 0)
    family = Family()
    for n in range(100, 200):
        family.join_worker(cast("WorkerProcess", Worker(n, os.getuid())))
    with (
        router(tmp_path / "n", family) as box,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.connect(str(tmp_path / "n"))
        for _ in range(5):
            sock.send(b"READY=1")
        box.deliver()
    assert asked == [os.getpid()] * 5
