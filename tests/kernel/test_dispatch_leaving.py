"""A worker that leaves unasked: what waits for it goes to others, and it gets nothing more."""

from __future__ import annotations

from tests.kernel.dispatching import CountingSelector, run, stage, until


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
