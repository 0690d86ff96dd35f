"""Events over the control socket: at once, as they come, and never at the manager's cost."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sockmgr.manager.control.connection import Limits
from tests.helpers.fake_manager import FakeManager, served
from tests.helpers.raw_client import LONG, MANAGER, Raw, assert_serves, run

EVENTS = f"{MANAGER}.Events"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


def whys(reply: dict[str, Any]) -> list[str]:
    return [event["why"] for event in reply["parameters"]["events"]]


def test_without_more_the_last_events_come_in_one_reply(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.happen("one", "two", "three")
        manager.happen("other", service="job")
        async with served(path, manager):
            client = await Raw.connect(path)
            reply = await client.ask(EVENTS, {"service": "web", "last": 2})
            assert whys(reply) == ["two", "three"]
            assert reply["parameters"]["missed"] is False
            first = reply["parameters"]["events"][0]
            assert (first["event"], first["worker"]) == ("worker-ended", "web@8.1")
            assert (first["generation"], first["fields"]) == (8, {"pid": "8001"})
            assert whys(await client.ask(EVENTS)) == ["one", "two", "three", "other"]
            assert whys(await client.ask(EVENTS, {"after": first["id"]})) == ["three", "other"]
            newest = reply["parameters"]["newest"]
            assert whys(await client.ask(EVENTS, {"after": newest})) == []
            assert "error" in await client.ask(EVENTS, {"last": -1})
            await client.close()

    run(scenario)


def test_with_more_events_come_as_they_happen(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        manager.happen("before")
        async with served(path, manager):
            client = await Raw.following(path, EVENTS)
            reply = await client.reply()
            assert (whys(reply), reply["continues"]) == (["before"], True)
            for why in ("one", "two"):
                manager.happen(why)
                assert whys(await client.reply()) == [why]
            await client.close()

    run(scenario)


def test_a_follower_that_does_not_read_is_told_that_it_missed_some_and_costs_no_memory(
    path: Path,
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager, Limits(write_timeout=0.01)):
            client = await Raw.following(path, EVENTS, {"last": 0})
            await client.reply()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(500):  # what a socket and one reply hold, and the history
                manager.happen(*(f"{number} {'x' * 400}" for _ in range(20)))
                await asyncio.sleep(0)
            tracemalloc.start()
            for number in range(500):
                manager.happen(*(f"{number} {'x' * 400}" for _ in range(20)))
                await asyncio.sleep(0)
            grown = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            # 10 000 events of 600 bytes and more went by; of those the history keeps 100.
            assert grown < 10**6
            await assert_serves(path)
            manager.happen("last")
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            missed, seen = False, []
            while "last" not in seen:
                reply = await client.reply()
                missed |= reply["parameters"]["missed"]
                seen += whys(reply)
            assert missed
            await client.close()

    run(scenario)


def test_the_last_events_reach_a_follower_when_the_manager_ends_which_does_not_wait_for_it(
    path: Path,
) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager, Limits(close_timeout=2 * LONG)) as server:
            client = await Raw.following(path, EVENTS)
            await client.reply()
            manager.happen("stopped")
            async with asyncio.timeout(LONG):
                await server.close()
            reply = await client.reply()
            while reply.get("continues"):
                reply = await client.reply()
            assert whys(reply) == ["stopped"]
            assert await client.is_closed()
            await client.close()

    run(scenario)


def test_those_who_follow_events_and_those_who_follow_the_log_are_bounded_together(
    path: Path,
) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager(), Limits(followers=2)):
            clients = [await Raw.following(path, EVENTS) for _ in range(2)]
            assert not any(["error" in await client.reply() for client in clients])
            other = await Raw.connect(path)
            other.call(f"{MANAGER}.Logs", more=True)
            assert "error" in await other.reply()
            await assert_serves(path)
            for client in (*clients, other):
                await client.close()

    run(scenario)


def test_the_status_leaves_out_what_takes_long_if_that_is_not_wanted(path: Path) -> None:
    async def scenario() -> None:
        async with served(path, FakeManager()):
            client = await Raw.connect(path)
            for parameters, sizes in (({}, {50_000_000}), ({"sizes": False}, {0})):
                reply = await client.ask(f"{MANAGER}.Status", parameters)
                workers = reply["parameters"]["services"]["web"]["workers"]
                assert {worker["rss"] for worker in workers} == sizes
            await client.close()

    run(scenario)


def test_a_worker_is_restarted_by_name_and_the_answer_names_its_successor(path: Path) -> None:
    async def scenario() -> None:
        manager = FakeManager()
        async with served(path, manager):
            client = await Raw.connect(path)
            reply = await client.ask(f"{MANAGER}.RestartWorker", {"worker": "web@8.1"})
            assert reply["parameters"] == {"successor": "web@8.9"}
            assert manager.restarted == ["web@8.1"]
            await client.close()

    run(scenario)
