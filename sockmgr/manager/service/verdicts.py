"""Who waits for the verdict on a reload: their requests, the news they hear, the receipt they get.

Owns the futures. Decides nothing: the fleet says committed or aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from sockmgr.api.types import Progress, Receipt, Verdict
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import Aborted, Committed, State, WorkerId
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.service.receipt import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    began: float
    verdict: asyncio.Future[Verdict]
    progress: Callable[[Progress], None]


class Verdicts:
    """The requests to reload one service that have no verdict yet."""

    def __init__(
        self, service: str, loop: asyncio.AbstractEventLoop, tasks: asyncio.TaskGroup
    ) -> None:
        self._service, self._loop, self._tasks = service, loop, tasks
        self._requests: dict[int, _Request] = {}
        self._last = 0
        self._measurement: Measurement | None = None
        self._removals: list[int] = []
        self._drain: Measurement | None = None  # of a service that is removed

    def ask(self, progress: Callable[[Progress], None]) -> tuple[int, asyncio.Future[Verdict]]:
        """Take a request; return its number and what will hold its verdict."""
        self._last += 1
        verdict: asyncio.Future[Verdict] = self._loop.create_future()
        began = self._loop.time()
        self._requests[self._last] = _Request(began=began, verdict=verdict, progress=progress)
        return self._last, verdict

    def measure(self, listeners: Sequence[Listener]) -> None:
        """A rollout begins: measure what it costs these listeners."""
        self._measurement = Measurement(listeners)

    def ask_for_removal(self, listeners: Sequence[Listener]) -> asyncio.Future[Verdict]:
        """Return what will hold the verdict when the service, which is to go, has stopped."""
        number, verdict = self.ask(not_told)
        self._removals.append(number)
        self._drain = self._drain or Measurement(listeners)
        return verdict

    def count_exit(self, state: State, *, well: bool) -> None:
        """Note for the receipt that a worker ended in this state, and whether it ended well."""
        for measurement in filter(None, (self._measurement, self._drain)):
            measurement.count_exit(state, well=well)

    def stopped(self, generation: int) -> None:
        """Answer those who asked for the removal, if anybody did: the last worker is gone."""
        if self._drain is None:
            return
        verdict = Verdict(
            service=self._service,
            verdict="committed",
            generation=generation,
            seconds=0.0,
            reason="removed from the config; it has stopped",
            receipt=self._drain.receipt((), 0),
            kept=0,
        )
        self._answer(tuple(self._removals), verdict)
        self._removals.clear()

    def report(self, trial: Generation, message: str) -> None:
        """Let those who asked for the generation on trial hear how far it is."""
        news = Progress(
            service=self._service,
            generation=trial.number,
            phase=trial.phase,
            ready=trial.ready,
            wanted=trial.wanted,
            seconds=0.0,
            message=message,
        )
        now = self._loop.time()
        for request in (self._requests[number] for number in trial.requests):
            seconds = round(now - request.began, 3)
            request.progress(msgspec.structs.replace(news, seconds=seconds))

    def committed(self, outcome: Committed, draining: Collection[WorkerId], finishing: int) -> None:
        """Answer those who asked for this generation: it serves."""
        verdict = Verdict(
            service=self._service,
            verdict="committed",
            generation=outcome.generation,
            seconds=0.0,
            reason="",
            receipt=self._receipt(draining, finishing),
            kept=outcome.generation,
        )
        self._answer(outcome.requests, verdict)

    def aborted(
        self, outcome: Aborted, draining: Collection[WorkerId], finishing: int, words: LastWords
    ) -> None:
        """Answer those who asked for this generation: it failed, and why.

        At once, or when the words of the worker that tells most have been got.
        """
        verdict = Verdict(
            service=self._service,
            verdict="aborted",
            generation=outcome.generation,
            seconds=0.0,
            reason=outcome.reason,
            receipt=self._receipt(draining, finishing),
            kept=outcome.kept,
            kept_ready=outcome.ready,
            output=words.lines,
            worker=words.said_by or (f"{self._service}@{outcome.worker}" if outcome.worker else ""),
        )
        if words.before is None:
            self._answer(outcome.requests, verdict)
        else:
            answer = self._answer_with(words, outcome.requests, verdict)
            self._tasks.create_task(answer, name=f"verdict on {self._service}")

    async def _answer_with(
        self, words: LastWords, requests: tuple[int, ...], verdict: Verdict
    ) -> None:
        heard = await words.all()
        told = msgspec.structs.replace(verdict, output=heard.lines, journal=heard.place)
        self._answer(requests, told)

    def _receipt(self, draining: Collection[WorkerId], finishing: int) -> Receipt:
        measurement, self._measurement = self._measurement or Measurement(()), None
        return measurement.receipt(draining, finishing)

    def _answer(self, requests: tuple[int, ...], verdict: Verdict) -> None:
        now = self._loop.time()
        for number in requests:
            request = self._requests.pop(number)
            # Whoever hung up has cancelled the future; the rollout went on all the same.
            if not request.verdict.done():
                seconds = round(now - request.began, 3)
                request.verdict.set_result(msgspec.structs.replace(verdict, seconds=seconds))


def not_told(news: Progress) -> None:
    """Hear nothing: nobody waits to be told how far a reload is."""
