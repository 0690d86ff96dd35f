"""One service: feeds its fleet with facts and performs, at once, the commands it returns.

Nothing else decides anything about its workers. Between `handle` and the last action performed
nothing is awaited.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from sockmgr.api.records import EventKind
from sockmgr.api.types import Progress, Verdict
from sockmgr.config.spec import Accept, Address, Spec
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    ClientsWait,
    Committed,
    CutOver,
    Drain,
    Fact,
    Feed,
    FeedFailed,
    Finish,
    Kill,
    Quiet,
    Recycle,
    Refuse,
    Reload,
    Serving,
    Spawn,
    SpawnFailed,
    Start,
    State,
    Stop,
    StopNow,
    Stopped,
    Tick,
    WorkerExited,
    WorkerId,
    WorkerReady,
    WorkerStopping,
    describe_exit,
)
from sockmgr.fleet.snapshot import ServiceSnapshot, record, restore
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.renewal import Renewal
from sockmgr.manager.listeners.repair import Damage
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.service.client_watch import ClientWatch
from sockmgr.manager.service.conditions import Conditions
from sockmgr.manager.service.intake import Intake, Neighbours, addresses
from sockmgr.manager.service.lease_map import LeaseMap, lease_modes
from sockmgr.manager.service.memory_check import fitting
from sockmgr.manager.service.pooling import pooled
from sockmgr.manager.service.processes import Processes
from sockmgr.manager.service.traffic import Traffic
from sockmgr.manager.service.verdicts import Verdicts, not_told
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")

MEASURED = 4  # workers whose memory is measured to tell what one more would need


class Service:
    """The shell around one fleet. `run` is its task; everything else only puts facts."""

    def __init__(
        self,
        name: str,
        context: WorkerContext,
        tasks: asyncio.TaskGroup,
        listener: Callable[[Address], Listener],
        changed: Callable[[], None],
        neighbours: Neighbours,
    ) -> None:
        """Run nothing yet; `changed` is called whenever there is something new."""
        self.name = name
        self.fleet = Fleet()
        self.repairs: deque[str] = deque(maxlen=8)
        self._facts: asyncio.Queue[Fact] = asyncio.Queue()
        self._context, self._users, self._changed = context, LeaseMap(listener), changed
        self._intake = Intake(name, self._users, neighbours)
        self._verdicts = Verdicts(name, context.loop, tasks)
        self.processes = Processes(name, context, self._users, self._facts.put_nowait, changed)
        self._traffic = Traffic(name, tasks, self._facts.put_nowait, self.processes.dispatching)
        self._renewal = Renewal(lambda at, lease: self._intake.renew(self.fleet, at, lease))
        self._conditions = Conditions(context.loop)
        self._clients = ClientWatch(context.loop, lambda: self._facts.put_nowait(ClientsWait()))

    # --- What others ask -----------------------------------------------------------------------

    def start(self, spec: Spec) -> None:
        """Run `spec`, whatever it takes: there is nothing to fall back to."""
        listeners = self._users.of(spec)
        left = self._traffic.adopt(listeners)
        self._facts.put_nowait(Start(spec=pooled(spec, listeners), left=left))

    def resume(self, was: ServiceSnapshot, survivors: Mapping[WorkerId, Survivor]) -> None:
        """Go on with what another manager ran: `survivors` are its workers that we could find."""
        self.fleet = restore(was, self._context.loop.time())
        for worker in list(self.fleet.workers()):
            spec = self.fleet.generations[worker.id.generation].spec
            self._renewal.given(worker.lease, spec)
            self.processes.adopt(worker, spec, survivors.get(worker.id))
        self._know_fleet(None)
        fed = dict(self.fleet.fed)
        self._traffic.resume(
            fed,
            self._users.fed(self.fleet, fed),
            self._users.unquiet(self.fleet, self.addresses),
        )
        self._facts.put_nowait(Tick())
        if any(self._users.listener(address).is_anew for address in self.addresses):
            self._replace(self.processes.running.values())

    def replace_unheard(self) -> None:
        """Replace the workers if nobody took over what they print to: writing may end them.

        By a whole generation: one worker that leaves a shared queue may lose a connection.
        """
        unheard = any(running.is_unheard for running in self.processes.running.values())
        if unheard and self.fleet.current:
            log.warning("nobody hears the workers", service=self.name, means="they are replaced")
            self.reload(self.fleet.current.spec, not_told)

    def written(self) -> ServiceSnapshot:
        """Return what resume() needs beside the workers' descriptors."""
        return record(self.name, self.fleet, self.processes.written)

    def reload(self, spec: Spec, progress: Callable[[Progress], None]) -> asyncio.Future[Verdict]:
        """Replace what runs by `spec`; the future holds the verdict about it."""
        number, verdict = self._verdicts.ask(progress)
        pids = [running.pid for running in self.processes.running.values() if running.pid]
        spec = pooled(fitting(spec, pids[-MEASURED:]), self._users.of(spec))
        self._facts.put_nowait(Reload(spec=spec, request=number))
        return verdict

    def put(self, fact: Fact) -> None:
        """Have the fleet told of this, soon."""
        self._facts.put_nowait(fact)

    def until(self, met: Callable[[], bool]) -> asyncio.Future[None]:
        """Return what is done once this is so; it fails if the service stops before."""
        return self._conditions.until(met)

    def serving(self) -> asyncio.Future[None]:
        """Return what is done once all wanted workers are ready."""
        return self.until(lambda: bool(self.fleet.current and self.fleet.current.full))

    def settled(self) -> asyncio.Future[None]:
        """Return what is done when no rollout is under way."""
        return self.until(lambda: self.fleet.trial is None and self.fleet.pending is None)

    def stop(self) -> asyncio.Future[None]:
        """Drain everything; the future is done when no worker is left."""
        self._facts.put_nowait(Stop())
        return self.until(lambda: self.fleet.stopped)

    def remove(self) -> asyncio.Future[Verdict]:
        """Drain everything, since the config has the service no more; the verdict says how."""
        listeners = [self._users.listener(address) for address in self.addresses]
        verdict = self._verdicts.ask_for_removal(listeners)
        self.stop()
        if self.fleet.stopped:
            self._verdicts.stopped(self.fleet.last)
        return verdict

    def stop_now(self) -> asyncio.Future[None]:
        """Kill everything; the future is done when no worker is left."""
        self._facts.put_nowait(StopNow())
        return self.until(lambda: self.fleet.stopped)

    def give_up(self) -> None:
        """Kill the workers of a rollout that are not ready: it aborts, if no failure is allowed."""
        trial = self.fleet.trial
        for id, running in self.processes.running.items():
            if trial and id.generation == trial.number and not running.ready:
                running.kill()

    def inspect(self, occasion: str) -> None:
        """Mend what workers did to the listeners; `occasion` says when that was seen."""
        with self._traffic.untouched(dict(self.fleet.fed)):
            findings = [
                each for at in self.addresses for each in self._users.listener(at).inspect()
            ]
        for finding in findings:
            if finding.damage is Damage.SHRUNK:  # a habit of servers, and no fault
                log.debug(EventKind.LISTENER_REPAIRED, found=finding, occasion=occasion)
                continue
            self.repairs.append(str(finding))
            log.warning(EventKind.LISTENER_REPAIRED, found=finding, occasion=occasion)
        self._replace(each for each in self.processes.running.values() if each.is_detached)

    def _replace(self, workers: Iterable[WorkerProcess]) -> None:
        why = "its listener had to be replaced by a new socket"
        for running in workers:
            self._facts.put_nowait(Recycle(worker=running.id, why=why))

    @property
    def wanted(self) -> int:
        """How many workers are wanted now."""
        serving = self.fleet.serving
        return serving.wanted if serving else 0

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses that some living generation uses, or the next one will."""
        return addresses(self.fleet)

    # --- The task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take fact after fact until no worker is left and none is wanted."""
        while not self.fleet.stopped:
            self._take(await self._next_fact())
            # get() does not suspend while facts are there, and other tasks want the loop, too.
            await asyncio.sleep(0)
        while not self._facts.empty():
            self._take(self._facts.get_nowait())  # a reload asked too late has its verdict, too
        self._traffic.close()
        self._clients.close()
        self.processes.keep_templates_of(())
        self._conditions.end(f"{self.name} was stopped meanwhile")

    async def _next_fact(self) -> Fact:
        deadline = self.fleet.deadline
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await self._facts.get()
        except TimeoutError:
            return Tick()

    def _take(self, fact: Fact) -> None:
        now = self._context.loop.time()
        self._note(fact, now)
        trial, served = self.fleet.trial, self.fleet.serving
        actions = self.fleet.handle(fact, now)
        self._know_fleet(served)
        if self.fleet.trial and self.fleet.trial is not trial:
            self._verdicts.measure(self._users.of(self.fleet.trial.spec))
        for action in actions:
            self._perform(action)
        self._after(fact)

    def _note(self, fact: Fact, now: float) -> None:
        match fact:
            case WorkerReady():
                if running := self.processes.running.get(fact.worker):
                    took = now - running.started_at
                    log.info(
                        EventKind.WORKER_READY, worker=running.name, pid=running.pid, took=took
                    )
            case WorkerStopping():
                self.processes.leave(fact.worker)
            case WorkerExited():
                worker = self.fleet.generations[fact.worker.generation].workers[fact.worker.slot]
                recycled = self.fleet.recycles(fact, now)
                well = self.processes.bury(worker, fact.status, recycled=recycled)
                self._verdicts.count_exit(worker.state, well=well)
            case SpawnFailed():
                self.processes.forget(fact.worker)
            case _:
                pass

    def _after(self, fact: Fact) -> None:
        match fact:
            case WorkerReady():
                self.inspect(f"after {self.name}@{fact.worker} became ready")
                self._report_on(fact.worker, "is ready")
            case WorkerExited():
                self.inspect(f"after {self.name}@{fact.worker} ended")
                self._report_on(fact.worker, describe_exit(fact.status))
        fleet, weights = self.fleet, dict(self.fleet.fed)
        if not isinstance(fact, FeedFailed):
            self._traffic.keep_up(weights, self._users.fed(fleet, weights))
        self._traffic.keep_waiting(fleet.unquiet)
        if fleet.starves:
            self._clients.watch(map(self._users.listener, self.addresses))
        else:
            self._clients.close()
        needed = () if fleet.stopping else (fleet.current, fleet.trial)
        self.processes.keep_templates_of({each.number for each in needed if each})
        if isinstance(fact, WorkerExited | SpawnFailed | Quiet | Tick):
            self._renew_queues()
        self._conditions.look()
        self._changed()

    def _renew_queues(self) -> None:
        if self._renewal.is_due(self.fleet):
            # The dispatcher accepts from all queues of its listeners, the unused ones too.
            with self._traffic.untouched(dict(self.fleet.fed)):
                self._renewal.perform(self.fleet)

    # --- Commands ------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Feed():
                weights = dict(action.leases)
                self._traffic.feed(weights, self._users.fed(self.fleet, weights))
            case Refuse():
                self._end_intake()
            case Drain():
                self._drain(action)
            case Finish():
                self.processes.finish(action)
            case Kill():
                self.processes.kill(action)
            case CutOver():
                log.info(EventKind.CUT_OVER, service=self.name, generation=action.generation)
                trial = self.fleet.trial
                self._report(_cut_over(trial.spec) if trial else "cut-over")
            case Serving():
                log.info(EventKind.SERVING, service=self.name, generation=action.generation)
            case _:
                self._end(action)

    def _end(self, outcome: Committed | Aborted | Stopped) -> None:
        match outcome:
            case Committed() | Aborted():
                self._tell_verdict(outcome)
            case Stopped():
                log.info(EventKind.STOPPED, service=self.name)
                self._verdicts.stopped(self.fleet.last)
            case _:
                assert_never(outcome)

    def _end_intake(self) -> None:
        self._intake.end(self.fleet)
        self._traffic.steer_no_more(dict(self.fleet.fed))
        self._traffic.wait_anew(self._users.unquiet(self.fleet, self.addresses))

    def _spawn(self, command: Spawn) -> None:
        if self.processes.spawn(command):
            self._renewal.given(command.lease, command.spec)
            self._traffic.expect(command.lease, self._users.of(command.spec))

    def _drain(self, command: Drain) -> None:
        running = self.processes.running.get(command.worker)
        if self.fleet.stopping and running and running.ready:
            self._traffic.accept_no_more()
        self.processes.drain(command, at_once=self.fleet.stopping)

    def _tell_verdict(self, outcome: Committed | Aborted) -> None:
        draining = [w.id for w in self.fleet.workers() if w.state is State.DRAINING]
        finishing, number = self.fleet.finishing, outcome.generation
        if isinstance(outcome, Committed):
            self.processes.died = 0
            log.info(EventKind.COMMITTED, service=self.name, generation=number,
                     draining=len(draining))  # fmt: skip
            self._verdicts.committed(outcome, draining, finishing)
            self._see_off()
        else:
            log.error(EventKind.ABORTED, service=self.name, generation=number, kept=outcome.kept,
                      ready=outcome.ready, reason=outcome.reason)  # fmt: skip
            words = self.processes.words_of(outcome.worker) if outcome.worker else LastWords()
            self._verdicts.aborted(outcome, draining, finishing, words)
        self.processes.forget_words()

    def _see_off(self) -> None:
        """Let nobody come any more to listeners that are removed, and wait until all are served."""
        if self._intake.refuse_removed(self.fleet):
            self._traffic.wait_anew(self._users.unquiet(self.fleet, self.addresses))

    # --- Small things --------------------------------------------------------------------------

    def _report_on(self, id: WorkerId, what: str) -> None:
        if self.fleet.trial and id.generation == self.fleet.trial.number:
            self._report(f"{self.name}@{id} {what}")

    def _report(self, message: str) -> None:
        if self.fleet.trial:
            self._verdicts.report(self.fleet.trial, message)

    def _know_fleet(self, before: Generation | None) -> None:
        """Go by the fleet's records as they are now; `before` is the generation that served."""
        self._traffic.modes = lease_modes(self.fleet, self._users)
        serving = self.fleet.serving
        if serving and serving is not before and serving.spec.accept is Accept.DISPATCH:
            self.processes.dispatching.configure(serving.spec)


def _cut_over(trial: Spec) -> str:
    if trial.listen:
        return "cut-over: new connections go to the new generation"
    return f"all count as ready; one that ends within {trial.rollout.probation:g} s takes it back"
