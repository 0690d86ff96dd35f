"""The last events: bounded, in one order over all managers, and nobody is waited for."""

from __future__ import annotations

import asyncio
import gc
import weakref

from msgspec.structs import replace

from sockmgr.manager.logs.events import KEPT_MAX, EventFollower, EventLog
from tests.helpers.fake_manager import happen


def told(history: EventLog, *hows: object, service: str = "web") -> None:
    for how in hows:
        happen(history, "worker ended", worker=f"{service}@1.1", how=how)


def taken(follower: EventFollower) -> tuple[list[str], bool]:
    events, missed = follower.take()
    return [event.why for event in events], missed


def successor(history: EventLog) -> EventLog:
    """Return the history of the next manager, which has told something before it knew the state."""
    found = EventLog(limit=5)
    told(found, "taken over")
    found.resume(*history.kept)
    return found


def test_a_follower_gets_the_last_events_and_then_each_that_comes_once() -> None:
    history = EventLog()
    told(history, 1, 2, 3)
    follower = EventFollower(history, "", None, 2)
    told(history, 4)
    assert taken(follower) == (["2", "3", "4"], False)
    assert taken(follower) == ([], False)
    told(history, 5)
    assert taken(follower) == (["5"], False)
    assert taken(EventFollower(history, "", None, 0)) == ([], False)


def test_a_follower_of_a_service_gets_the_events_about_that_service() -> None:
    history = EventLog()
    told(history, "one")
    told(history, "other", service="job")
    follower = EventFollower(history, "web", None, None)
    told(history, "another", service="job")
    told(history, "two")
    assert taken(follower) == (["one", "two"], False)


def test_ids_grow_even_when_the_clock_stands_still() -> None:
    history = EventLog()
    told(history, *range(100))
    ids = [event.id for event in EventFollower(history, "", None, None).take()[0]]
    assert ids == sorted(set(ids))


def test_whoever_goes_on_after_an_event_gets_exactly_what_came_after_it() -> None:
    history = EventLog()
    told(history, 1, 2, 3)
    second = EventFollower(history, "", None, None).take()[0][1].id
    assert taken(EventFollower(history, "", second, None)) == (["3"], False)
    assert taken(EventFollower(history, "", history.newest, None)) == ([], False)
    assert taken(EventFollower(history, "", second - 1, 1)) == (["3"], False)


def test_whoever_goes_on_after_an_event_whose_next_is_gone_is_told_that_it_missed_some() -> None:
    history = EventLog(limit=3)
    told(history, 1)
    first = history.newest
    told(history, 2, 3, 4)
    assert taken(EventFollower(history, "", first, None)) == (["2", "3", "4"], False)
    told(history, 5)
    assert taken(EventFollower(history, "", first, None)) == (["3", "4", "5"], True)


def test_a_slow_follower_keeps_no_events_alive_and_is_told_that_it_missed_some() -> None:
    history = EventLog(limit=3)
    follower = EventFollower(history, "", None, 0)
    told(history, *range(5))
    assert taken(follower) == (["2", "3", "4"], True)
    told(history, 5)
    assert taken(follower) == (["5"], False)
    gone = weakref.ref(history)
    del history, follower
    gc.collect()
    assert gone() is None


def test_the_next_manager_goes_on_where_the_last_one_was() -> None:
    history = EventLog()
    told(history, 1, 2)
    seen = history.newest
    told(history, 3)
    after = successor(history)
    told(after, 4)
    assert taken(EventFollower(after, "", seen, None)) == (["3", "taken over", "4"], False)


def test_the_next_manager_says_what_of_the_last_one_it_does_not_know() -> None:
    history = EventLog()
    told(history, *range(KEPT_MAX + 3))
    ids = [event.id for event in EventFollower(history, "", None, None).take()[0]]
    after = EventLog()
    after.resume(*history.kept)
    assert after.is_complete_since(ids[2])
    assert not after.is_complete_since(ids[1])


def test_ids_go_on_growing_when_the_clock_was_put_back_between_two_managers() -> None:
    history = EventLog()
    told(history, 1)
    since, events = history.kept
    hour = 3600 * 10**6
    late = replace(events[0], id=events[0].id + hour)
    after = EventLog()
    told(after, 2)
    after.resume(since, [late])
    told(after, 3)
    assert taken(EventFollower(after, "", late.id, None)) == (["2", "3"], False)


def test_a_manager_that_knows_nothing_of_the_last_one_says_so_to_whoever_does() -> None:
    history, stranger = EventLog(), EventLog()
    told(history, 1)
    told(stranger, "new")
    assert taken(EventFollower(stranger, "", 7, None)) == (["new"], True)
    assert taken(EventFollower(stranger, "", stranger.newest + 10**9, None)) == (["new"], True)


def test_whoever_waits_is_woken_by_an_event_and_not_before() -> None:
    async def scenario() -> None:
        history = EventLog()
        follower = EventFollower(history, "", None, None)
        waiting = follower.next()
        await asyncio.sleep(0)
        assert not waiting.done()
        told(history, 1)
        assert waiting.done()
        assert follower.next().done()
        follower.take()
        more = follower.next()
        assert not more.done()
        more.cancel()

    asyncio.run(scenario())


def test_an_event_is_seen_by_nobody_until_the_next_manager_would_know_it() -> None:
    async def scenario() -> None:
        history, order = EventLog(), list[str]()
        history.on_event = lambda: order.append("to be kept")
        follower = EventFollower(history, "", None, None)

        async def follow() -> None:
            await follower.next()
            order.append("woken")

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        told(history, 1)
        await asyncio.sleep(0)
        assert (order, follower.take()) == (["to be kept"], ((), False))
        assert not EventFollower(history, "", None, None).take()[0]
        history.show()
        await following
        assert order == ["to be kept", "woken"]
        assert len(follower.take()[0]) == len(EventFollower(history, "", None, None).take()[0]) == 1

    asyncio.run(scenario())
