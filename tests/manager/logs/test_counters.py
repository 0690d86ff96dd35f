"""What is counted, from records as the manager writes them."""

from __future__ import annotations

import pytest

from sockmgr.api.records import EventKind
from sockmgr.api.types import Counts
from sockmgr.fleet.endings import Ending
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import (
    State,
)
from sockmgr.log import Occurrence
from sockmgr.manager.logs.counters import Counters
from tests.helpers.record_texts import records

K = EventKind
CLEAN = Ending(status=0, clean=True)


def ended(was: State, how: Ending | int, served: int = 5) -> Occurrence:
    how = how if isinstance(how, Ending) else Ending(status=how)
    fields = {"worker": "web@7.2", "pid": 812, "was": was, "how": how, "served": served}
    return Occurrence(K.WORKER_ENDED, fields)


@pytest.mark.parametrize(
    ("happened", "counts"),
    [
        (Occurrence(K.COMMITTED, {"service": "web", "generation": 8}), Counts(committed=1)),
        (Occurrence(K.ABORTED, {"service": "web", "reason": "it fell"}), Counts(aborted=1)),
        (Occurrence(K.WORKER_STARTED, {"worker": "web@7.2", "pid": 812}), Counts(started=1)),
        (Occurrence(K.CANNOT_START_WORKER, {"worker": "web@7.2"}), Counts(not_started=1)),
        (Occurrence(K.WORKER_HANGS, {"worker": "web@7.2"}), Counts(hung=1)),
        (
            Occurrence(K.WORKER_LOST_CONNECTIONS, {"worker": "web@7.2", "count": 3}),
            Counts(connections_lost=3),
        ),
        (
            Occurrence(K.WORKER_RECYCLED, {"worker": "web@7.2", "limit": Limit.RSS, "why": "x"}),
            Counts(max_rss=1),
        ),
        (ended(State.DRAINING, CLEAN), Counts(drained=1)),
        (ended(State.DRAINING, 1), Counts(unclean=1)),
        (ended(State.KILLED, -9), Counts(killed=1)),
        (ended(State.READY, 0), Counts(exited=1)),
        (ended(State.READY, -11), Counts(crashed=1)),
        (ended(State.READY, Ending(status=0, recycled=True)), Counts(recycled=1)),
        (ended(State.STARTING, Ending(status=0, recycled=True), served=0), Counts(recycled=1)),
        (ended(State.STARTING, 3, served=0), Counts(unready=1)),
        (ended(State.KILLED, -9, served=0), Counts(unready=1)),
        (Occurrence(K.WORKER_READY, {"worker": "web@7.2"}), Counts()),
        (Occurrence(K.COMMITTED, {"service": "job"}), Counts()),
    ],
)
def test_an_occurrence_is_counted_once_for_the_service_that_it_is_about(
    happened: Occurrence, counts: Counts
) -> None:
    tally = Counters()
    tally.take(happened)
    assert tally.of("web") == counts


def test_reloads_that_did_not_begin_are_nobodys() -> None:
    tally = Counters()
    tally.take(Occurrence(K.RELOAD_REFUSED, {"error": "the config is wrong"}))
    assert (tally.refused, tally.kept) == (1, {})


def test_the_next_manager_goes_on_counting_and_keeps_what_it_counted_before_it_knew() -> None:
    first, second = Counters(), Counters()
    refused, crashed = Occurrence(K.RELOAD_REFUSED, {}), ended(State.READY, 1)
    for happened in (refused, crashed, crashed):
        first.take(happened)
    for happened in (refused, crashed, ended(State.DRAINING, CLEAN)):
        second.take(happened)
    second.resume(first.kept, first.refused)
    assert (second.of("web"), second.refused) == (Counts(crashed=3, drained=1), 2)


def test_nothing_is_left_of_a_service_that_has_stopped() -> None:
    tally = Counters()
    tally.take(ended(State.DRAINING, CLEAN))
    tally.take(Occurrence(K.STOPPED, {"service": "web"}))
    assert tally.kept == {}


def test_what_is_counted_are_records_that_the_manager_writes() -> None:
    told: dict[str, set[str | None]] = {}
    for message, fields in records():
        told[message] = told.get(message, fields) & fields
    assert {"worker", "was", "how", "served"} <= told[K.WORKER_ENDED]
    assert {"worker", "count"} <= told[K.WORKER_LOST_CONNECTIONS]
    assert all("worker" in told[m] for m in (K.WORKER_STARTED, K.CANNOT_START_WORKER,
                                             K.WORKER_HANGS))  # fmt: skip
    assert all("service" in told[m] for m in (K.COMMITTED, K.ABORTED, K.STOPPED))
    assert K.RELOAD_REFUSED in told
