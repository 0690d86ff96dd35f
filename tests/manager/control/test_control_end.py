"""What was asked for goes on and is answered: callers that leave, and the end of the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sockmgr.manager.control.connection import Limits
from tests.helpers.fake_manager import FakeManager, served
from tests.helpers.raw_client import LONG, MANAGER, SERVICE, Raw, assert_serves, let_in, run, until
from tests.manager.control.garbage import GARBAGE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


def test_a_caller_that_hangs_up_does_not_end_its_rollout_and_gives_up_its_place(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.gate.clear()
        async with served(path, manager, Limits(clients=1)):
            for _ in range(5):
                client = await let_in(path)
                client.call(f"{MANAGER}.Reload", more=True)
                await manager.began.acquire()
                await client.close()
            manager.gate.set()
            for _ in range(5):
                async with asyncio.timeout(LONG):
                    await manager.ended.acquire()

    run(scenario)


def test_a_caller_that_only_ends_its_own_half_still_gets_the_answer(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.gate.clear()
        async with served(path, manager):
            client = await Raw.connect(path)
            client.call(f"{MANAGER}.Reload")
            client.writer.write_eof()
            await manager.began.acquire()
            await assert_serves(path)
            manager.gate.set()
            assert "verdicts" in (await client.reply())["parameters"]
            assert await client.is_closed()
            await client.close()

    run(scenario)


def test_reloads_without_number_are_refused_but_a_stop_is_not(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.gate.clear()
        async with served(path, manager, Limits(operations=8)):
            client = await Raw.connect(path)
            for _ in range(100):
                client.call(f"{MANAGER}.Reload", oneway=True)
            reply = await client.ask(f"{MANAGER}.Reload")
            assert reply["error"] == f"{MANAGER}.Refused"
            assert len(manager.reloads) == 4
            client.call(f"{MANAGER}.Stop")
            for _ in range(5):
                await manager.began.acquire()
            manager.gate.set()
            assert (await client.reply()) == {"parameters": {}}
            await client.close()

    run(scenario)


def test_a_stop_is_answered_before_the_server_has_closed(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.gate.clear()
        async with served(path, manager) as server:
            idle = await Raw.connect(path)
            await idle.ask(f"{SERVICE}.GetInfo")
            client = await Raw.connect(path)
            client.call(f"{MANAGER}.Stop", {"now": True})
            await manager.began.acquire()
            closing = asyncio.ensure_future(server.close())
            assert await idle.is_closed()
            assert not closing.done()
            manager.gate.set()
            assert (await client.reply()) == {"parameters": {}}
            assert await client.is_closed()
            await closing
            assert not path.exists()
            await idle.close()
            await client.close()
        assert manager.stopped == [True]

    run(scenario)


def test_the_end_waits_for_no_operation_longer_than_its_limit(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.gate.clear()
        async with served(path, manager, Limits(close_timeout=0.2)) as server:
            client = await Raw.connect(path)
            client.call(f"{MANAGER}.Reload")
            await manager.began.acquire()
            await asyncio.wait_for(server.close(), LONG)
            assert await client.is_closed()
            await client.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_clients_of_every_kind_leave_no_descriptor_behind(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(clients=4)):
            await assert_serves(path)
            before = descriptors()
            for number in range(100):
                clients = [await Raw.connect(path) for _ in range(6)]
                clients[0].writer.write(GARBAGE[number % len(GARBAGE)])
                clients[1].call(f"{MANAGER}.Reload", more=True)
                for client in clients:
                    await client.close()
            await until(lambda: descriptors() <= before)

    run(scenario)
