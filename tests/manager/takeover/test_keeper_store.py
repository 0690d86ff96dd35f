"""The manager's side of a keeper: another one takes the place of one that is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockmgr.manager.takeover.keeper import Keeper
from sockmgr.manager.takeover.keeper_store import KeeperStore
from tests.helpers.children import PATIENCE, open_fds
from tests.helpers.keeping import evict, pipe, sleeping, take_names
from tests.helpers.raw_client import until


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shop" / "keeper"
    path.parent.mkdir()
    yield path
    evict(path)


def test_another_keeper_takes_the_place_of_a_dead_one_and_is_told_everything_anew(
    path: Path,
) -> None:
    async def scenario() -> None:
        lost = asyncio.Event()
        keeping = KeeperStore.start(path)
        first = keeping.pid
        keeping.watch(lost.set)
        os.kill(first, signal.SIGKILL)
        await asyncio.wait_for(lost.wait(), PATIENCE)
        assert keeping.pid != first
        with sleeping() as worker:
            keeping.keep("web@1.0", [worker.pidfd])
            Keeper.resume(os.dup(keeping.fileno()), path).close()  # which is to let go of it
            assert take_names(path) == ["web@1.0"]
        keeping.dismiss()

    before = open_fds()
    asyncio.run(scenario())
    assert open_fds() == before


def test_a_keeper_that_has_no_state_yet_was_not_given_all_and_there_is_to_be_another(
    path: Path,
) -> None:
    with sleeping() as worker:
        before = Keeper.start(path)
        before.keep("web@1.0/pidfd", [worker.pidfd])
        before.close()  # as its manager's death does
        descriptors: dict[str, list[int]] = {}
        assert KeeperStore.find(path, descriptors) is None
        assert descriptors.keys() == {"web@1.0/pidfd"}
        assert not path.exists()
        os.close(descriptors["web@1.0/pidfd"][0])


def test_where_no_other_can_be_started_it_is_tried_again_until_it_can(path: Path) -> None:
    async def scenario() -> None:
        lost = asyncio.Event()
        keeping = KeeperStore.start(path)
        keeping.watch(lost.set)
        path.unlink()
        path.parent.rmdir()
        os.kill(keeping.pid, signal.SIGKILL)
        await until(lambda: keeping.fileno() < 0)
        path.parent.mkdir()
        await asyncio.wait_for(lost.wait(), PATIENCE)
        keeping.dismiss()

    asyncio.run(scenario())


def test_where_no_other_can_be_started_the_manager_goes_on_and_ends_without(path: Path) -> None:
    async def scenario() -> None:
        keeping = KeeperStore.start(path)
        keeping.watch(lambda: None)
        os.kill(keeping.pid, signal.SIGKILL)
        path.unlink()
        path.parent.rmdir()
        await until(lambda: keeping.fileno() < 0)
        with pipe() as (reader, _):
            keeping.keep("http", [reader])
        keeping.forget("http")
        keeping.dismiss()

    before = open_fds()
    asyncio.run(scenario())
    assert open_fds() == before
