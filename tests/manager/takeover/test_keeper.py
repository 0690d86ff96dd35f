"""What a real keeper holds, and for how long."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from sockmgr.errors import ControlError
from sockmgr.manager.takeover.keeper import Keeper
from sockmgr.programs.keeper import MAX_FDS
from tests.helpers.children import python, wait_for_exit, wait_until
from tests.helpers.keeping import (
    close_all,
    connect,
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


# --- What it holds -------------------------------------------------------------------------------


def test_a_name_that_is_kept_again_has_the_new_descriptors_only(keeper: Keeper, path: Path) -> None:
    with pipe() as old, pipe() as new, sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd, old[1]])
        keeper.keep("web@1.0", [new[1], worker.pidfd])
        os.close(old[1])
        os.close(new[1])
        assert os.read(old[0], 1) == b""  # its last writer is gone
        with pytest.raises(BlockingIOError):
            os.read(new[0], 1)
        keeper.close()
        successor, held = take(path)
        os.write(held[0][1][0], b"x")
        assert os.read(new[0], 1) == b"x"
        close_all(held)
        successor.dismiss()


def test_what_is_forgotten_is_closed_and_unknown_names_do_no_harm(keeper: Keeper) -> None:
    with pipe() as (reader, writer):
        keeper.keep("out", [writer])
        os.close(writer)
        keeper.forget("in")
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        keeper.forget("out")
        assert os.read(reader, 1) == b""


def test_many_names_and_many_descriptors_come_back_in_order(keeper: Keeper, path: Path) -> None:
    with contextlib.ExitStack() as stack, sleeping() as worker:
        pairs = [stack.enter_context(pipe()) for _ in range(300)]
        kept = [(f"web@1.{number}", list(pair)) for number, pair in enumerate(pairs)]
        kept.append(("http", [fd for pair in pairs for fd in pair][:MAX_FDS]))
        kept.append(("web@2.0", [worker.pidfd]))
        for name, fds in kept:
            keeper.keep(name, fds)
        keeper.close()
        successor, held = take(path)
        assert [(name, list(map(os.path.sameopenfile, fds, again)))
                for (name, fds), (_, again) in zip(kept, held, strict=True)] == [
            (name, [True] * len(fds)) for name, fds in kept
        ]  # fmt: skip
        close_all(held)
        successor.dismiss()


def test_a_call_with_a_closed_descriptor_fails_and_the_next_one_works(keeper: Keeper) -> None:
    with pipe() as (reader, writer):
        os.close(writer)
        with pytest.raises(OSError, match="Bad file descriptor"):
            keeper.keep("out", [reader, writer])
        keeper.keep("out", [reader])


@pytest.mark.parametrize(
    ("name", "number"), [("", 1), ("x" * 256, 1), ("x", MAX_FDS + 1), ("x", 0)]
)
def test_what_does_not_fit_into_a_message_is_refused(
    keeper: Keeper, name: str, number: int
) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        keeper.keep(name, [0] * number)


def test_a_keeper_that_is_full_says_so_and_can_be_taken_over(keeper: Keeper, path: Path) -> None:
    with sleeping() as worker, pipe() as (reader, _):
        keeper.keep("web@1.0", [worker.pidfd])
        limit = fds_of(keeper.pid) + 3
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (limit, limit))
        with pytest.raises(ControlError, match="too low"):
            keeper.keep("web@1.0", [reader] * 4)
        keeper.keep("full", [reader] * 3)
        keeper.close()
        assert take_names(path) == ["web@1.0", "full"]


def test_a_keeper_that_cannot_let_anybody_in_waits_until_it_can(keeper: Keeper, path: Path) -> None:
    with sleeping() as worker:
        keeper.keep("web@1.0", [worker.pidfd])
        soft, hard = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (3, 20000))
        before = fds_of(keeper.pid)
        with connect(path):
            wait_until(lambda: fds_of(keeper.pid) < before, what="a place given up in vain")
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (soft, hard))
        keeper.close()
        assert take_names(path) == ["web@1.0"]


def test_it_may_hold_more_than_we_may_open(path: Path) -> None:
    program = f"""
import resource, os
from pathlib import Path
from sockmgr.errors import ControlError
from sockmgr.manager.takeover.keeper import Keeper
resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
keeper = Keeper.start(Path({str(path)!r}))
for number in range(20):
    keeper.keep(f"http#{{number}}", [1] * 10)
keeper.keep("web@1.0", [os.pidfd_open(os.getppid())])
keeper.close()
before = os.listdir("/proc/self/fd")
try:
    Keeper.take_over(keeper.path)
except ControlError as error:
    print(error.what)
print(before == os.listdir("/proc/self/fd"))
"""
    with python(program) as manager:
        assert "too many open files" in manager.line()
        assert manager.line() == "True"
        assert len(take_names(path)) == 21


# --- How long it lives ---------------------------------------------------------------------------


def test_without_a_manager_it_ends_with_the_last_worker(keeper: Keeper, path: Path) -> None:
    with sleeping() as first, sleeping() as second, watched(keeper) as process, pipe() as (_, fd):
        keeper.keep("web@1.0", [fd, first.pidfd])
        keeper.keep("web@1.1", [second.pidfd])
        keeper.close()
        first.signal(signal.SIGKILL)
        wait_for_exit(first)
        assert take_names(path) == ["web@1.0", "web@1.1"]
        second.signal(signal.SIGKILL)
        wait_for_exit(process)
        assert not path.exists()


def test_without_a_manager_and_workers_it_ends_at_once(keeper: Keeper, path: Path) -> None:
    with sleeping() as ended, sleeping() as other, watched(keeper) as process, pipe() as (fd, _):
        ended.signal(signal.SIGKILL)
        keeper.keep("web@1.0", [ended.pidfd])
        keeper.keep("@state", [fd])
        keeper.keep("not a worker", [other.pidfd])
        wait_for_exit(ended)
        keeper.close()
        wait_for_exit(process)
        assert not path.exists()
        assert Keeper.take_over(path) is None


def test_it_waits_for_no_worker_that_was_forgotten(keeper: Keeper) -> None:
    with sleeping() as worker, watched(keeper) as process:
        keeper.keep("web@1.0", [worker.pidfd])
        keeper.forget("web@1.0")
        keeper.close()
        wait_for_exit(process)


def test_it_leaves_a_path_that_is_not_its_own_any_more(keeper: Keeper, path: Path) -> None:
    with watched(keeper) as process:
        path.unlink()
        path.write_text("precious")
        keeper.close()
        wait_for_exit(process)
        assert path.read_text() == "precious"
    path.unlink()


def test_when_dismissed_it_is_gone_with_all_that_only_it_held(keeper: Keeper, path: Path) -> None:
    with sleeping() as worker, watched(keeper) as process:
        keeper.keep("web@1.0", [worker.pidfd])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            keeper.keep("http", [listener.fileno()])
        keeper.dismiss()
        assert is_readable(process.pidfd)
        assert not path.exists()
        with socket.socket() as again:
            again.bind(address)
