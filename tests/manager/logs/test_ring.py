"""The last lines of the log: bounded, and nobody is waited for."""

from __future__ import annotations

import asyncio
import gc
import weakref

from sockmgr.api.types import LogLine
from sockmgr.manager.logs.ring import Follower, Ring


def line(message: str, service: str = "web") -> LogLine:
    return LogLine(
        time=0.0, level="info", source=f"{service}@1.1", service=service, event="", message=message
    )


def told(ring: Ring, *messages: object, service: str = "web") -> None:
    for message in messages:
        ring.add(line(str(message), service))


def taken(follower: Follower) -> tuple[list[str], int]:
    lines, missed = follower.take()
    return [line.message for line in lines], missed


def test_the_newest_lines_are_kept_no_more_than_so_many_and_so_much() -> None:
    ring = Ring(lines_max=3, characters_max=20)
    told(ring, *"abcde")
    assert taken(Follower(ring, "", 9)) == (["c", "d", "e"], 0)
    told(ring, "f" * 10, "g" * 10)
    assert taken(Follower(ring, "", 9)) == (["f" * 10, "g" * 10], 0)
    told(ring, "h" * 21)
    assert taken(Follower(ring, "", 9)) == ([], 0)


def test_a_follower_gets_the_last_lines_and_then_each_line_that_comes_once() -> None:
    ring = Ring()
    told(ring, 1, 2, 3)
    follower = Follower(ring, "", 2)
    told(ring, 4)
    assert taken(follower) == (["2", "3", "4"], 0)
    assert taken(follower) == ([], 0)
    told(ring, 5)
    assert taken(follower) == (["5"], 0)
    assert taken(Follower(ring, "", 0)) == ([], 0)


def test_a_follower_of_a_service_gets_the_lines_about_that_service() -> None:
    ring = Ring()
    told(ring, "one")
    told(ring, "other", service="job")
    follower = Follower(ring, "web", 9)
    told(ring, "another", service="job")
    told(ring, "two")
    assert taken(follower) == (["one", "two"], 0)


def test_a_slow_follower_is_told_how_many_lines_about_its_service_it_missed() -> None:
    ring = Ring(lines_max=3)
    told(ring, 0)
    of_all, of_one = Follower(ring, "", 0), Follower(ring, "web", 0)
    for number in range(5):
        told(ring, number)
        told(ring, number, service="job")
    assert taken(of_all) == (["3", "4", "4"], 7)
    assert taken(of_one) == (["4"], 4)
    assert taken(of_one) == ([], 0)


def test_whoever_waits_is_woken_by_the_next_line_or_by_one_that_came_before() -> None:
    async def scenario() -> None:
        ring = Ring()
        follower = Follower(ring, "", 0)
        waiting = follower.next()
        told(ring, 1)
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(follower.next(), 5)
        follower.take()
        assert not follower.next().done()

    asyncio.run(scenario())


def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        ring = Ring()
        waiting = ring.wakeup.next()
        left = weakref.ref(waiting)
        waiting.cancel()
        del waiting
        await asyncio.sleep(0)
        gc.collect()
        assert left() is None
        told(ring, 1)

    asyncio.run(scenario())
