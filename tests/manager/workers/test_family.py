"""What ended workers left is looked for once a turn of the loop, however many end in it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

from sockmgr.manager.workers.family import Family
from tests.helpers.children import running
from tests.helpers.work import calls


def in_one_turn(work: Callable[[], object]) -> None:
    async def turn() -> None:
        work()

    asyncio.run(turn())


def test_workers_that_end_in_one_turn_share_one_look() -> None:
    family = Family()

    def claim() -> None:
        first = calls(lambda: family.strangers_of(1 << 22))
        others = calls(lambda: [family.strangers_of((1 << 22) + n) for n in range(100)])
        assert others < 3 * 100 < 100 * first

    in_one_turn(claim)


def test_workers_of_another_manager_that_end_in_one_turn_share_one_walk_of_proc() -> None:
    family = Family()

    def claim() -> None:
        first = calls(lambda: family.anybody_of(1 << 22))
        others = calls(lambda: [family.anybody_of((1 << 22) + n) for n in range(100)])
        assert others < 3 * 100 < 100 * first

    in_one_turn(claim)


def test_a_look_costs_one_call_a_known_child_and_more_for_a_stranger_only() -> None:
    def cost(children: int) -> int:
        family, found = Family(), []
        processes = [subprocess.Popen(["sleep", "600"]) for _ in range(children)]
        for process in processes:
            family.join(process.pid)
        try:
            in_one_turn(lambda: found.append(calls(family.strangers)))
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return found[0]

    assert cost(20) <= cost(2)


def test_a_child_that_nobody_knows_is_found_by_its_session_in_the_next_turn_too() -> None:
    family = Family()
    seen: list[bool] = []
    with running(["sh", "-c", "sleep 600 & echo; wait"], executable="/bin/sh") as child:
        child.line()

        def look() -> None:
            seen.append(child.pid in family.strangers_of(child.pid))
            seen.append(child.pid in family.anybody_of(child.pid))

        in_one_turn(look)
        family.join(child.pid)
        in_one_turn(look)
        family.part(child.pid)
        in_one_turn(look)
    assert seen == [True, True, False, True, True, True]


def test_a_pid_is_known_until_all_have_parted_from_it() -> None:
    family = Family()
    family.join(7)
    family.join(7)
    family.part(7)
    assert 7 in family.known
    family.part(7)
    assert not family.known
