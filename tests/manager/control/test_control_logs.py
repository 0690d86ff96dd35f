"""The log over the control socket: at once, as it comes, and never at the manager's cost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sockmgr.api.types import JournalPlace
from sockmgr.manager.control.connection import Limits
from tests.helpers.fake_manager import FakeManager, served
from tests.helpers.raw_client import LONG, MANAGER, Raw, assert_serves, run

LOGS = f"{MANAGER}.Logs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


def messages(reply: dict[str, Any]) -> list[str]:
    return [line["message"] for line in reply["parameters"].get("lines", ())]


def test_without_more_the_last_lines_come_in_one_reply(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.tell("one", "two", "three")
        manager.tell("other", service="job")
        async with served(path, manager):
            client = await Raw.connect(path)
            reply = await client.ask(LOGS, {"service": "web", "lines": 2})
            assert messages(reply) == ["two", "three"]
            assert reply["parameters"]["lines"][0]["source"] == "web@8.1"
            assert messages(await client.ask(LOGS)) == ["one", "two", "three", "other"]
            assert "error" in await client.ask(LOGS, {"lines": -1})
            await client.close()

    run(scenario)


def test_with_more_lines_come_as_they_are_told(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.tell("before")
        async with served(path, manager):
            client = await Raw.following(path, LOGS)
            reply = await client.reply()
            assert (messages(reply), reply["continues"]) == (["before"], True)
            for message in ("one", "two"):
                manager.tell(message)
                assert messages(await client.reply()) == [message]
            await client.close()

    run(scenario)


def test_the_last_lines_reach_a_follower_when_the_manager_ends_which_does_not_wait_for_it(
    path: Path,
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager, Limits(close_timeout=2 * LONG)) as server:
            client = await Raw.following(path, LOGS)
            await client.reply()
            manager.tell("stopped")
            async with asyncio.timeout(LONG):
                await server.close()
            reply = await client.reply()
            while reply.get("continues"):
                reply = await client.reply()
            assert messages(reply) == ["stopped"]
            assert await client.is_closed()
            await client.close()

    run(scenario)


def test_a_follower_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed(
    path: Path,
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager, Limits(write_timeout=0.01)):
            client = await Raw.following(path, LOGS)
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            told = 0
            for _ in range(100):
                manager.tell(*(f"{number} {'x' * 2000}" for number in range(told, told + 100)))
                told += 100
                await assert_serves(path)
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            seen, missed = 0, 0
            while seen + missed < told:
                reply = await client.reply()
                seen += len(messages(reply))
                missed += reply["parameters"].get("missed", 0)
            assert seen + missed == told
            assert missed > 0
            await client.close()

    run(scenario)


def test_followers_without_number_are_turned_away_and_the_rest_is_served(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(followers=2)):
            clients = [await Raw.following(path, LOGS) for _ in range(3)]
            replies = [await client.reply() for client in clients]
            assert sum("error" in reply for reply in replies) == 1
            await assert_serves(path)
            for client in clients:
                await client.close()

    run(scenario)


def test_the_place_of_a_follower_that_left_is_free_again(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager, Limits(followers=1)):
            for _ in range(5):
                client = await Raw.following(path, LOGS)
                while "error" in await client.reply():
                    client.call(LOGS, more=True)
                await client.close()

    run(scenario)


def test_a_follower_that_only_ends_its_own_half_still_gets_what_comes(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            client = await Raw.following(path, LOGS)
            await client.reply()
            client.writer.write_eof()
            await assert_serves(path)
            manager.tell("still")
            assert messages(await client.reply()) == ["still"]
            await client.close()

    run(scenario)


@pytest.mark.parametrize("more", [False, True])
def test_a_manager_that_writes_to_the_journal_says_where_its_lines_are(
    path: Path, more: bool
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.place = JournalPlace(unit="shop.service")
        async with served(path, manager):
            client = await Raw.connect(path)
            client.call(LOGS, more=more)
            reply = await client.reply()
            assert reply["parameters"]["journal"]["unit"] == "shop.service"
            assert not reply.get("continues")
            await client.close()

    run(scenario)
