"""What is counted, from records as the manager writes them."""

from __future__ import annotations

import pytest

from sockmgr.api.types import Counts
from sockmgr.manager.logs.counters import Counters
from tests.api.test_records import records


def ended(was: str, how: str, served: int = 5) -> dict[str, object]:
    return {"message": "worker ended", "worker": "web@7.2", "pid": 812, "was": was, "how": how,
            "served": served}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ({"message": "committed", "service": "web", "generation": 8}, Counts(committed=1)),
        ({"message": "aborted", "service": "web", "reason": "it fell"}, Counts(aborted=1)),
        ({"message": "worker started", "worker": "web@7.2", "pid": 812}, Counts(started=1)),
        ({"message": "cannot start worker", "worker": "web@7.2"}, Counts(not_started=1)),
        ({"message": "worker hangs", "worker": "web@7.2"}, Counts(hung=1)),
        (
            {"message": "worker lost connections", "worker": "web@7.2", "count": 3},
            Counts(connections_lost=3),
        ),
        (ended("draining", "clean"), Counts(drained=1)),
        (ended("draining", "exited with status 1"), Counts(unclean=1)),
        (ended("killed", "was killed by signal 9 (KILL)"), Counts(killed=1)),
        (ended("ready", "exited with status 0"), Counts(exited=1)),
        (ended("ready", "was killed by signal 11 (SEGV)"), Counts(crashed=1)),
        (ended("starting", "exited with status 3", served=0), Counts(unready=1)),
        (ended("killed", "was killed by signal 9 (KILL)", served=0), Counts(unready=1)),
        ({"message": "worker ready", "worker": "web@7.2"}, Counts()),
        ({"message": "committed", "service": "job"}, Counts()),
    ],
)
def test_a_record_is_counted_once_for_the_service_that_it_is_about(
    told: dict[str, object], counts: Counts
) -> None:
    tally = Counters()
    tally.take(told)
    assert tally.of("web") == counts


def test_reloads_that_did_not_begin_are_nobodys() -> None:
    tally = Counters()
    tally.take({"message": "reload refused", "error": "the config is wrong"})
    assert (tally.refused, tally.kept) == (1, {})


def test_the_next_manager_goes_on_counting_and_keeps_what_it_counted_before_it_knew() -> None:
    first, second = Counters(), Counters()
    for told in ({"message": "reload refused"}, ended("ready", "x"), ended("ready", "x")):
        first.take(told)
    for told in ({"message": "reload refused"}, ended("ready", "x"), ended("draining", "clean")):
        second.take(told)
    second.resume(first.kept, first.refused)
    assert (second.of("web"), second.refused) == (Counts(crashed=3, drained=1), 2)


def test_nothing_is_left_of_a_service_that_has_stopped() -> None:
    tally = Counters()
    tally.take(ended("draining", "clean"))
    tally.take({"message": "stopped", "service": "web"})
    assert tally.kept == {}


def test_what_is_counted_are_records_that_the_manager_writes() -> None:
    told: dict[str, set[str | None]] = {}
    for message, fields in records():
        told[message] = told.get(message, fields) & fields
    assert {"worker", "was", "how", "served"} <= told["worker ended"]
    assert {"worker", "count"} <= told["worker lost connections"]
    assert all("worker" in told[m] for m in ("worker started", "cannot start worker",
                                             "worker hangs"))  # fmt: skip
    assert all("service" in told[m] for m in ("committed", "aborted", "stopped"))
    assert "reload refused" in told
