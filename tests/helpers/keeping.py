"""Use a keeper, watch it, and look at what it holds."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sockmgr.kernel.process import Process
from sockmgr.kernel.unix_node import credentials
from sockmgr.manager.takeover.keeper import Keeper
from tests.helpers.children import PATIENCE, running


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Return where the keeper of a test is found; none is left there."""
    path = tmp_path / "keeper"
    yield path
    evict(path)


@pytest.fixture
def keeper(path: Path) -> Iterator[Keeper]:
    keeper = Keeper.start(path)
    yield keeper
    keeper.kill()


def evict(path: Path) -> None:
    """Kill the process that listens at `path`, if there is one, and remove the path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.setblocking(False)
        with contextlib.suppress(OSError):
            caller.connect(str(path))
            pid, _ = credentials(caller)
            assert pid != os.getpid()
            process = Process(pid)
            process.signal(signal.SIGKILL)
            assert is_readable(process.pidfd, PATIENCE)
            process.close()
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def watched(keeper: Keeper) -> Iterator[Process]:
    """Have a pidfd of the keeper's process, to wait for its end."""
    process = Process(keeper.pid)
    yield process
    process.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield reader, writer
    finally:
        for fd in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(fd)


def close_all(held: Sequence[tuple[str, Sequence[int]]]) -> None:
    for _, fds in held:
        for fd in fds:
            os.close(fd)


def take(path: Path) -> tuple[Keeper, list[tuple[str, list[int]]]]:
    found = Keeper.take_over(path)
    assert found is not None, "nobody answers"
    return found


def take_names(path: Path) -> list[str]:
    """Take everything over, and let go of it again."""
    keeper, held = take(path)
    close_all(held)
    keeper.close()
    return [name for name, _ in held]


def connect(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(PATIENCE)
    peer.connect(str(path))
    return peer


def is_readable(fd: int, seconds: float = 0.0) -> bool:
    watch = select.poll()
    watch.register(fd, select.POLLIN)
    return bool(watch.poll(seconds * 1000))


def fds_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.contextmanager
def sleeping() -> Iterator[Process]:
    with running(["sleep", "600"], executable="/bin/sleep") as child:
        yield child.process
