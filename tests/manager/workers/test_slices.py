"""Work at many workers is done in slices, in order, and a piece that fails stops no other."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from sockmgr.manager.workers.slices import SLICE, Slices


def test_a_lot_of_work_lets_others_have_their_turn_and_is_done_in_order() -> None:
    async def scenario() -> None:
        slices, done = Slices(), list[int]()

        def work(number: int) -> None:
            time.sleep(SLICE / 3)
            done.append(number)

        for number in range(20):
            slices.add(partial(work, number))
        assert not done
        turns = []
        while len(done) < 20:
            await asyncio.sleep(0)
            turns.append(len(done))
        assert done == list(range(20))
        # However slow the machine is, no slice has more than three pieces and a begun one.
        assert max(b - a for a, b in zip([0, *turns], turns, strict=False)) <= 4

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_piece_that_fails_is_told_and_the_others_are_done() -> None:
    async def scenario() -> None:
        slices, done, told = Slices(), asyncio.Event(), list[str]()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))

        def fail() -> None:
            raise OSError("no descriptor is left")

        slices.add(fail)
        slices.add(done.set)
        await done.wait()
        assert told == ["no descriptor is left"]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_work_that_adds_work_is_followed_by_it() -> None:
    async def scenario() -> None:
        slices, done = Slices(), asyncio.Event()
        slices.add(lambda: slices.add(done.set))
        await done.wait()

    asyncio.run(asyncio.wait_for(scenario(), 30))
