"""Workers that leave, asked or unasked, and who gets what comes meanwhile."""

from __future__ import annotations

from tests.helpers.dispatching import Stage, listening, stage


def test_what_waits_for_a_worker_that_leaves_goes_to_others_at_once_and_it_gets_no_more() -> None:
    with stage() as staged:
        leaving, other = staged.ready(0), staged.ready(1)
        staged.connect(6)
        staged.passed(6)
        staged.dispatcher.abandon(0)
        staged.until(lambda: other.has(6), what="the other has all of them")
        staged.connect(2)
        staged.until(lambda: other.has(8), what="and what came after that")
        assert leaving.take() == []
        staged.dispatcher.quiet(0)
        staged.until(lambda: staged.quiet == {0}, what="nothing waits for it")
        assert not staged.misbehaved


def test_what_waits_for_the_only_worker_that_leaves_goes_to_its_successor() -> None:
    with stage() as staged:
        staged.ready(0)
        staged.connect(3)
        staged.passed(3)
        staged.dispatcher.abandon(0)
        staged.connect(2)
        successor = staged.ready(1)
        staged.until(lambda: successor.has(5), what="the successor has all of them")


def test_who_is_fed_no_more_gets_what_comes_to_a_listener_that_nobody_else_has() -> None:
    with listening() as http, listening() as removed:
        staged = Stage({"http": http, "removed": removed}, most=1)
        old = staged.ready(0, ["http", "removed"])
        staged.connect(1, "removed")
        staged.until(lambda: old.has(1), what="the old one is full")
        staged.connect(1, "removed")
        staged.feeds = False
        new = staged.ready(1, ["http"])
        staged.dispatcher.feed({1: 1, 0: 1}, {1: ["http"], 0: ["removed"]})
        staged.connect(1)
        staged.until(lambda: new.has(1), what="the new one has who came to http")
        assert not old.take()
        old.end(1)
        staged.until(lambda: old.has(1), what="the old one has who waited there")
        assert old.taken[0].listener == "removed"
        staged.close()


def test_who_waits_for_a_dead_worker_is_closed_once_no_other_is_to_have_the_listener() -> None:
    with listening() as http, listening() as removed:
        staged = Stage({"http": http, "removed": removed})
        staged.ready(0, ["http", "removed"])
        [client] = staged.connect(1, "removed")
        staged.passed(1)
        staged.feeds = False
        staged.ready(1, ["http"])
        staged.dispatcher.meant = {"http", "removed"}
        staged.dispatcher.feed({1: 1}, {1: ["http"]})
        staged.dispatcher.detach(0)
        assert not staged.said, "another worker may come"
        staged.dispatcher.meant = {"http"}
        staged.dispatcher.feed({1: 1}, {1: ["http"]})
        assert client.recv(1) == b""
        assert "connections lost count=1 listener=removed" in staged.said[0]
        staged.until(lambda: staged.emptied, what="the channel is let go")
        staged.close()
