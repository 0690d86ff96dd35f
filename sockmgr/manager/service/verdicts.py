"""The clients that wait for the verdict on a reload: their requests, progress and receipt.

Owns the futures. Decides nothing: the fleet says committed or aborted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import msgspec

from sockmgr.api.records import EventKind
from sockmgr.api.types import Progress, Receipt, Verdict, WarmUp
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.history import History, Origin
from sockmgr.fleet.messages import Aborted, Committed, State, WorkerId
from sockmgr.log import Log
from sockmgr.manager.asker import ASKER
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.service.processes import Processes
from sockmgr.manager.service.receipt import Measurement

log = Log("sockmgr")


def nothing() -> None:
    """Accept no config: what commits has none of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    began: float
    verdict: asyncio.Future[Verdict]
    progress: Callable[[Progress], None]
    origin: Origin
    accept: Callable[[], object]


class Verdicts:
    """The requests to reload one service that have no verdict yet."""

    def __init__(
        self,
        service: str,
        loop: asyncio.AbstractEventLoop,
        tasks: asyncio.TaskGroup,
        history: Callable[[], History],
    ) -> None:
        """Tell of generations what `history` knows of them."""
        self._history = history
        self._service, self._loop, self._tasks = service, loop, tasks
        # The fleet knows a request by its number only, since it must not hold futures.
        self._requests: dict[int, _Request] = {}
        self._last = 0
        self._measurement: Measurement | None = None
        self._joined: dict[int, list[int]] = {}  # by the generation whose verdict they wait for
        self._removals: list[int] = []
        self._drain: Measurement | None = None  # of a service that is removed

    def ask(
        self,
        progress: Callable[[Progress], None],
        origin: Origin | None = None,
        accept: Callable[[], object] = nothing,
    ) -> tuple[int, asyncio.Future[Verdict]]:
        """Take a request, by default for a reload by whoever asks now.

        Return its number, and the future that will hold its verdict.
        """
        origin = origin or Origin(kind="reload", by=ASKER.get())
        self._last += 1
        verdict: asyncio.Future[Verdict] = self._loop.create_future()
        began = self._loop.time()
        self._requests[self._last] = _Request(
            began=began, verdict=verdict, progress=progress, origin=origin, accept=accept
        )
        return self._last, verdict

    @property
    def are_due(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._requests)

    def origin(self, trial: Generation | None) -> Origin:
        """Return how a generation that has begun comes: on trial, or as the first one (None)."""
        if trial is None:
            return Origin(kind="start")
        # The spec is that of the last request. A predecessor's requests are nobody's now.
        asked = self._requests.get(trial.requests[-1]) if trial.requests else None
        return asked.origin if asked else Origin(kind="reload")

    def join(self, trial: Generation) -> asyncio.Future[Verdict]:
        """Return a future that will hold the verdict on this generation, which is on trial."""
        # No request of the fleet's: it knows only of those for which it began the generation.
        number, verdict = self.ask(ignore_progress)
        self._joined.setdefault(trial.number, []).append(number)
        # The verdict tells how long the rollout took, not the decision.
        self._requests[number] = replace(self._requests[number], began=self._began(trial))
        return verdict

    def _began(self, trial: Generation) -> float:
        """Return the instant at which a rollout began; the requests of a predecessor are gone."""
        now, began = self._loop.time(), self._history().began(trial.number)
        if trial.requests and (asked := self._requests.get(trial.requests[0])):
            return asked.began
        return now if began is None else now - max(0.0, time.time() - began)

    def measure(self, listeners: Sequence[Listener]) -> None:
        """Measure from now on what a rollout costs these listeners."""
        self._measurement = Measurement(listeners)

    def ask_for_removal(self, listeners: Sequence[Listener]) -> asyncio.Future[Verdict]:
        """Return a future that will hold the verdict once the removed service has stopped."""
        number, verdict = self.ask(ignore_progress)
        self._removals.append(number)
        # A second reload without the service waits for the same drain, from its beginning on.
        self._drain = self._drain or Measurement(listeners)
        return verdict

    def count_exit(self, state: State, *, well: bool, moved: int) -> None:
        """Note for the receipt how a worker ended, and how many connections it gave to others."""
        for measurement in filter(None, (self._measurement, self._drain)):
            measurement.count_exit(state, well=well, moved=moved)

    def count_warm_up(self, warmed: WarmUp | None) -> None:
        """Note for the receipt how a worker was warmed up, if it was."""
        if warmed and self._measurement:
            self._measurement.count_warm_up(warmed)

    def stopped(self, generation: int) -> None:
        """Answer the clients that asked for the removal, if any did: the last worker has ended."""
        if self._drain is None:
            return
        verdict = Verdict(
            service=self._service,
            verdict="committed",
            generation=generation,
            reason="removed from the config; it has stopped",
            receipt=self._drain.receipt((), 0),
            kept=0,
        )
        self._answer(tuple(self._removals), verdict)
        self._removals.clear()

    def report(self, trial: Generation, message: str, phase: str = "") -> None:
        """Report to the clients that asked for the generation on trial how far it is."""
        news = Progress(
            service=self._service,
            generation=trial.number,
            phase=phase or trial.phase,
            ready=trial.ready,
            wanted=trial.wanted,
            message=message,
            step=trial.step + 1 if trial.share else 0,
        )
        now = self._loop.time()
        for request in (self._requests[number] for number in trial.requests):
            seconds = round(now - request.began, 3)
            request.progress(msgspec.structs.replace(news, seconds=seconds))

    def report_on(self, trial: Generation | None, worker: WorkerId, what: str) -> None:
        """Report what a worker did, if it is one of the generation on trial."""
        if trial and worker.generation == trial.number:
            self.report(trial, f"{self._service}@{worker} {what}")

    def report_hook(
        self, trial: Generation | None, generation: int, moment: str, news: str
    ) -> None:
        """Report how far a hook is, if it is one of the generation on trial."""
        if trial and generation == trial.number:
            self.report(trial, news, f"hook {moment}")

    def cut_over(self, generation: int, trial: Generation | None) -> None:
        """Report that new connections go to this generation, which is still on trial, or not."""
        log.info(EventKind.CUT_OVER, service=self._service, generation=generation)
        if trial is None:
            return
        news = "cut-over: new connections go to the new generation"
        if not trial.spec.listen:  # no connections of ours: its workers serve since they are ready
            probation = trial.spec.rollout.probation
            news = f"all count as ready; one that ends within {probation:g} s takes it back"
        self.report(trial, news)

    def committed(self, outcome: Committed, fleet: Fleet, processes: Processes) -> None:
        """Answer the clients that asked for this generation: it serves, if perhaps with a flaw."""
        draining = _draining(fleet)
        processes.died = 0  # of the drain that begins now
        processes.forget_words()
        if outcome.requests:  # what runs is the spec of the last one, whoever else asked
            self._requests[outcome.requests[-1]].accept()
        release = self._history().release(outcome.generation)
        log.info(EventKind.COMMITTED, service=self._service, generation=outcome.generation,
                 draining=len(draining), **({"release": release} if release else {}))  # fmt: skip
        verdict = Verdict(
            service=self._service,
            verdict="committed",
            generation=outcome.generation,
            reason=processes.dispatching.flaw,
            receipt=self._receipt(draining, fleet, processes),
            kept=outcome.generation,
        )
        self._answer(outcome.requests, verdict)

    def aborted(
        self, outcome: Aborted, fleet: Fleet, processes: Processes, words: LastWords
    ) -> None:
        """Answer the clients that asked for this generation: it failed, and why.

        `words` are those of its hook, which count if the reason names no worker.
        The answer waits until the last words of the worker that failed have been fetched.
        """
        words = processes.words_of(outcome.worker) if outcome.worker else words
        # What its worker printed is mostly the access log of the probe, which says less.
        reason = ": ".join(filter(None, (outcome.reason, words.seen)))
        log.error(EventKind.ABORTED, service=self._service, generation=outcome.generation,
                  kept=outcome.kept, ready=outcome.ready, reason=reason)  # fmt: skip
        processes.forget_words()
        verdict = Verdict(
            service=self._service,
            verdict="aborted",
            generation=outcome.generation,
            reason=reason,
            receipt=self._receipt(_draining(fleet), fleet, processes),
            kept=outcome.kept,
            kept_ready=outcome.ready,
            output=words.lines,
            worker=words.said_by or (f"{self._service}@{outcome.worker}" if outcome.worker else ""),
            failed=outcome.failed,
        )
        # If only the journal has the words, it may take a second to find them: the other services
        # must not wait for that.
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

    def _receipt(
        self, draining: Collection[WorkerId], fleet: Fleet, processes: Processes
    ) -> Receipt:
        # What was never on trial is not measured.
        measurement, self._measurement = self._measurement or Measurement(()), None
        cost = measurement.receipt(draining, fleet.finishing)
        canary = processes.comparing.take(self._loop.time())
        return msgspec.structs.replace(cost, canary=canary)

    def _answer(self, requests: tuple[int, ...], verdict: Verdict) -> None:
        now, history = self._loop.time(), self._history()
        verdict = msgspec.structs.replace(
            verdict,
            release=history.release(verdict.generation),
            rollback=history.origin(verdict.generation).to,
        )
        for number in (*requests, *self._joined.pop(verdict.generation, ())):
            request = self._requests.pop(number)
            # One rollout may answer several requests, and each has waited for a time of its own.
            # Whoever hung up has cancelled the future; the rollout went on all the same.
            if not request.verdict.done():
                seconds = round(now - request.began, 3)
                request.verdict.set_result(msgspec.structs.replace(verdict, seconds=seconds))


def _draining(fleet: Fleet) -> list[WorkerId]:
    return [worker.id for worker in fleet.workers() if worker.state is State.DRAINING]


def ignore_progress(news: Progress) -> None:
    """Drop the news: nobody waits to hear how far the reload is."""
