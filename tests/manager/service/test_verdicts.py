"""Who asked for a rollout, or for the removal of a service, is answered once, with what it cost."""

from __future__ import annotations

import asyncio

from sockmgr.fleet.history import History
from sockmgr.fleet.messages import State
from sockmgr.manager.service.verdicts import Verdicts


def test_all_who_asked_for_a_removal_are_answered_when_it_has_stopped_and_not_before() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            verdicts = Verdicts("web", asyncio.get_running_loop(), tasks, History)
            first = verdicts.ask_for_removal(())
            verdicts.count_exit(State.DRAINING, well=True, moved=0)
            second = verdicts.ask_for_removal(())
            verdicts.count_exit(State.KILLED, well=True, moved=0)
            assert not first.done()
            assert not second.done()
            verdicts.stopped(3)
            for verdict in (first.result(), second.result()):
                assert (verdict.receipt.drained, verdict.receipt.killed) == (1, 1)
                assert (verdict.verdict, verdict.generation, verdict.kept) == ("committed", 3, 0)
                assert verdict.reason

    asyncio.run(scenario())


def test_a_service_that_stops_though_nobody_removed_it_answers_nobody() -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            verdicts = Verdicts("web", asyncio.get_running_loop(), tasks, History)
            verdicts.stopped(3)
            assert not verdicts.ask_for_removal(()).done()

    asyncio.run(scenario())
