"""Workers that leave, asked or unasked, and who gets what comes meanwhile."""

from __future__ import annotations

from tests.helpers.dispatching import CountingSelector, Stage, listening, run, stage, until


def test_what_waits_for_a_worker_that_leaves_goes_to_others_at_once_and_it_gets_no_more() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as staged:
            leaving, other = await staged.ready(0), await staged.ready(1)
            staged.connect(6)
            await staged.passed(6)
            staged.dispatcher.abandon(0)
            await until(lambda: other.has(6), what="the other has all of them")
            staged.connect(2)
            await until(lambda: other.has(8), what="and what came after that")
            assert leaving.take() == []
            assert staged.dispatcher.quiet(0).done()
            assert not staged.misbehaved

    run(main)


def test_what_waits_for_the_only_worker_that_leaves_goes_to_its_successor() -> None:
    async def main(_: CountingSelector) -> None:
        async with stage() as staged:
            await staged.ready(0)
            staged.connect(3)
            await staged.passed(3)
            staged.dispatcher.abandon(0)
            staged.connect(2)
            successor = await staged.ready(1)
            await until(lambda: successor.has(5), what="the successor has all of them")

    run(main)


def test_who_is_fed_no_more_gets_what_comes_to_a_listener_that_nobody_else_has() -> None:
    async def main(_: CountingSelector) -> None:
        with listening() as http, listening() as removed:
            staged = Stage({"http": http, "removed": removed}, most=1)
            old = await staged.ready(0, ["http", "removed"])
            staged.connect(1, "removed")
            await until(lambda: old.has(1), what="the old one is full")
            staged.connect(1, "removed")
            staged.feeds = False
            new = await staged.ready(1, ["http"])
            staged.dispatcher.feed({1: 1, 0: 1}, {1: ["http"], 0: ["removed"]})
            staged.connect(1)
            await until(lambda: new.has(1), what="the new one has who came to http")
            assert not old.take()
            old.end(1)
            await until(lambda: old.has(1), what="the old one has who waited there")
            assert old.taken[0].listener == "removed"
            staged.close()

    run(main)
