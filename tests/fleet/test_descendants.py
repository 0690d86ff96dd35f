"""What descendants are told when the main process of their worker has ended, and when."""

from __future__ import annotations

import math

from sockmgr.fleet.descendants import ASKED_AFTER, HELPER_TIME, LAST_WAIT, Orphan, Orphans

QUIT, TERM, KILL = 3, 15, 9


def orphan(pid: int, *, parent: int = 1, started: int = 1, serves: bool = False) -> Orphan:
    return Orphan(pid=pid, parent=parent, started=started, serves=serves)


def sent(orphans: Orphans, present: list[Orphan], now: float) -> list[tuple[int, int]]:
    return [(each.pid, number) for each, number in orphans.due(present, now)]


def test_who_serves_gets_the_stop_signal_once_and_is_killed_at_the_deadline() -> None:
    orphans, present = Orphans(QUIT, 30.0), [orphan(7, serves=True)]
    assert sent(orphans, present, 0) == [(7, QUIT)]
    assert sent(orphans, present, 29) == []
    assert orphans.next(29) == 30
    assert sent(orphans, present, 30) == [(7, KILL)]
    assert sent(orphans, present, 31) == []


def test_who_has_served_may_finish_without_a_socket() -> None:
    orphans = Orphans(QUIT, math.inf)
    sent(orphans, [orphan(7, serves=True)], 0)
    assert sent(orphans, [orphan(7)], 100) == []
    assert orphans.serve([orphan(7)])


def test_a_helper_is_asked_in_the_middle_of_its_second_and_killed_after_it() -> None:
    orphans, present = Orphans(QUIT, math.inf), [orphan(7)]
    assert sent(orphans, present, 10) == []
    assert orphans.next(10) == 10 + ASKED_AFTER
    assert sent(orphans, present, 10 + ASKED_AFTER) == [(7, TERM)]
    assert orphans.next(10 + ASKED_AFTER) == 10 + HELPER_TIME
    assert sent(orphans, present, 10 + HELPER_TIME) == [(7, KILL)]
    assert not orphans.serve(present)


def test_of_a_line_of_servers_the_topmost_is_told_and_then_who_is_left() -> None:
    orphans = Orphans(QUIT, math.inf)
    master, worker = orphan(7, serves=True), orphan(8, parent=7, serves=True)
    assert sent(orphans, [master, worker], 0) == [(7, QUIT)]
    assert sent(orphans, [orphan(8, serves=True)], 1) == [(8, QUIT)]


def test_helpers_of_a_server_and_wrappers_above_it_have_its_time() -> None:
    orphans = Orphans(QUIT, math.inf)
    wrapper, server = orphan(7), orphan(8, parent=7, serves=True)
    tracker = orphan(9, parent=8)
    assert sent(orphans, [wrapper, server, tracker], 0) == [(8, QUIT)]
    assert sent(orphans, [wrapper, server, tracker], 20) == []
    assert sent(orphans, [tracker], 20) == []  # its second begins now
    assert sent(orphans, [tracker], 20 + HELPER_TIME) == [(9, KILL)]


def test_who_was_told_by_another_manager_is_not_told_again_but_who_has_its_pid_is() -> None:
    orphans = Orphans(QUIT, math.inf, told=[(7, 1), (8, 1)])
    assert sent(orphans, [orphan(7, serves=True), orphan(8, started=2, serves=True)], 0) == [
        (8, QUIT)
    ]


def test_who_does_not_die_of_kill_is_waited_for_no_longer() -> None:
    orphans, present = Orphans(QUIT, 5.0), [orphan(7), orphan(8, serves=True)]
    assert orphans.waited_for(present, 4) == present
    sent(orphans, present, 5)
    assert orphans.waited_for(present, 6) == present
    assert orphans.next(6) == 5 + LAST_WAIT
    assert orphans.waited_for(present, 5 + LAST_WAIT) == []


def test_parents_in_a_circle_are_no_endless_line() -> None:
    orphans = Orphans(QUIT, math.inf)
    assert sent(orphans, [orphan(7, parent=8, serves=True), orphan(8, parent=7)], 0) == [(7, QUIT)]
