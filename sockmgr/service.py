"""One service: feeds its fleet with facts and performs, at once, the commands it returns.

Nothing else decides anything about its workers. Between `handle` and the last action performed
nothing is awaited.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import assert_never

from sockmgr.core.errors import ListenError, SpawnError
from sockmgr.core.fleet import Fleet
from sockmgr.core.generation import Worker
from sockmgr.core.model import (
    Aborted,
    Accept,
    Action,
    Address,
    Committed,
    CutOver,
    Drain,
    Fact,
    Feed,
    Kill,
    Phase,
    Recycle,
    Reload,
    Serving,
    Spawn,
    SpawnFailed,
    Spec,
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
from sockmgr.core.report import Progress, Verdict
from sockmgr.core.snapshot import ProcessSnapshot, ServiceSnapshot, record, restore
from sockmgr.feeding import Feeding
from sockmgr.leftovers import Leftovers
from sockmgr.listener import Listener
from sockmgr.log import Log
from sockmgr.output import Words
from sockmgr.passing import Passing
from sockmgr.pooling import pooled
from sockmgr.room import fitting
from sockmgr.running import Running, Surroundings, Survivor
from sockmgr.template import Templates
from sockmgr.users import Users, Ways, ways
from sockmgr.verdicts import Verdicts, not_told
from sockmgr.waiters import Waiters

log = Log("sockmgr")

DRAIN_PACE = 0.1  # seconds between two stop signals, but all are sent within a second
MEASURED = 4  # workers whose memory is measured to tell what one more would need
AT_EVERY_START = "shrank the backlog"  # by servers that call listen() with a backlog of their own
LOST = "its manager died before it could be told of"
WENT_AWAY = (
    "it ended without a fault before it was ready: if it went into the background, tell it to stay "
    "in the foreground"
)


class Service:
    """The shell around one fleet. `run` is its task; everything else only puts facts."""

    def __init__(
        self,
        name: str,
        around: Surroundings,
        tasks: asyncio.TaskGroup,
        listener: Callable[[Address], Listener],
        changed: Callable[[], None],
        kept: Callable[[Address, Service], bool],
    ) -> None:
        """`kept` tells whether anybody else wants a listener."""
        self.name = name
        self.fleet = Fleet()
        self.running: dict[WorkerId, Running] = {}
        self.killed = 0  # that had served
        self.repairs: deque[str] = deque(maxlen=8)
        self._facts: asyncio.Queue[Fact] = asyncio.Queue()
        self._around, self._users, self._changed = around, Users(listener), changed
        self._is_kept = kept
        self._verdicts = Verdicts(name, around.loop, tasks)
        self.passing = Passing(self._facts.put_nowait)
        self._feeding = Feeding(tasks, self._facts.put_nowait, self.passing, self._ways)
        self._leftovers = Leftovers(around.helpers)
        self._templates = Templates(name, around.loop, around.output, changed)
        self._last_words: dict[WorkerId, Words] = {}
        self._drain_at = 0.0
        self._told: set[str] = set()
        self._waiters = Waiters(around.loop)

    # --- What others ask -----------------------------------------------------------------------

    def start(self, spec: Spec) -> None:
        """Run `spec`, whatever it takes: there is nothing to fall back to."""
        listeners = self._users.of(spec)
        left = self._feeding.adopt(listeners)
        self._facts.put_nowait(Start(spec=pooled(spec, listeners), left=left))

    def resume(self, was: ServiceSnapshot, survivors: Mapping[WorkerId, Survivor]) -> None:
        """Go on with what another manager ran: `survivors` are its workers that we could find."""
        self.fleet = restore(was, self._around.loop.time())
        for worker in list(self.fleet.workers()):
            self._resume(worker, survivors.get(worker.id))
        fed = dict(self.fleet.fed)
        self._feeding.resume(
            fed,
            self._users.fed(self.fleet, fed),
            self._users.unquiet(self.fleet, self.addresses),
        )
        self._facts.put_nowait(Tick())

    def _resume(self, worker: Worker, survivor: Survivor | None) -> None:
        spec = self.fleet.generations[worker.id.generation].spec
        command = Spawn(worker=worker.id, spec=spec, lease=worker.lease, background=False)
        if survivor is None and spec.preload and worker.state is State.STARTING:
            self._spawn(command)  # its template, which was to make it, ended with our predecessor
            return
        if survivor is None:
            self._facts.put_nowait(SpawnFailed(worker=worker.id, error=LOST))
            return
        running = self.running[worker.id] = Running(
            command, self._users.of(spec), self._around, self._facts.put_nowait, survivor
        )
        self.passing.attach(running)
        log.info("worker adopted", worker=running.name, pid=running.pid, state=worker.state)
        if worker.state is State.KILLED:
            running.kill()
        elif worker.state is State.DRAINING and not running.told:
            running.drain()
        elif worker.leaving:
            self.passing.abandon(running)

    def replace_unheard(self) -> None:
        """Replace the workers if nobody took over what they print to: writing may end them.

        By a whole generation: one worker that leaves a shared queue may lose a connection.
        """
        unheard = any(running.is_unheard for running in self.running.values())
        if unheard and self.fleet.current:
            log.warning("nobody hears the workers", service=self.name, means="they are replaced")
            self.reload(self.fleet.current.spec, not_told)

    def written(self) -> ServiceSnapshot:
        """Return what resume() needs beside the workers' descriptors."""
        processes = {
            id: ProcessSnapshot(
                pid=running.pid,
                started=running.process.started,
                told=running.told,
                channel=running.ends,
            )
            for id, running in self.running.items()
            if running.pid
        }
        return record(self.name, self.fleet, processes)

    def reload(self, spec: Spec, progress: Callable[[Progress], None]) -> asyncio.Future[Verdict]:
        """Replace what runs by `spec`; the future holds the verdict about it."""
        number, verdict = self._verdicts.ask(progress)
        measured = [running.pid for running in self.running.values() if running.pid][-MEASURED:]
        spec = pooled(fitting(spec, measured), self._users.of(spec))
        self._facts.put_nowait(Reload(spec=spec, request=number))
        return verdict

    def put(self, fact: Fact) -> None:
        """Have the fleet told of this, soon."""
        self._facts.put_nowait(fact)

    def until(self, met: Callable[[], bool]) -> asyncio.Future[None]:
        """Return what is done once this is so; it fails if the service stops before."""
        return self._waiters.until(met)

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

    def stop_now(self) -> asyncio.Future[None]:
        """Kill everything; the future is done when no worker is left."""
        self._facts.put_nowait(StopNow())
        return self.until(lambda: self.fleet.stopped)

    def give_up(self) -> None:
        """Kill the workers of a rollout that are not ready: it aborts, if no failure is allowed."""
        trial = self.fleet.trial
        for id, running in self.running.items():
            if trial and id.generation == trial.number and not running.ready:
                running.kill()

    def inspect(self, occasion: str) -> None:
        """Look at the listeners, mend what workers did to them, and tell when that was."""
        with self._feeding.untouched(dict(self.fleet.fed)):
            findings = [
                each for at in self.addresses for each in self._users.listener(at).inspect()
            ]
        for finding in findings:
            tell = log.warning
            if AT_EVERY_START in finding:  # a habit of servers, and no fault
                tell = log.debug if finding in self._told else log.info
                self._told.add(finding)
            else:
                self.repairs.append(finding)
            tell("listener repaired", found=finding, occasion=occasion)
        for running in self.running.values():
            if running.is_detached:
                self._facts.put_nowait(
                    Recycle(
                        worker=running.id, why="its listener had to be replaced by a new socket"
                    )
                )

    def orphans_reaped(self) -> None:
        """Look for strays again: only now is ours what an orphan forked as it ended."""
        self._leftovers.end_and_forget(self._used)

    @property
    def wanted(self) -> int:
        """How many workers are wanted now."""
        serving = self.fleet.current or self.fleet.trial
        return serving.wanted if serving else 0

    @property
    def pids(self) -> set[int]:
        """The processes whose exit we hear of by ourselves."""
        workers = {pid for running in self.running.values() for pid in running.pids}
        return workers | self._templates.pids

    @property
    def _used(self) -> set[int]:
        return {inode for running in self.running.values() for inode in running.inodes}

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses that some living generation uses, or the next one will."""
        specs = [g.spec for g in self.fleet.generations.values()]
        if self.fleet.pending:
            specs.append(self.fleet.pending.spec)
        return frozenset(listen.address for spec in specs for listen in spec.listen)

    # --- The task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take fact after fact until no worker is left and none is wanted."""
        while not self.fleet.stopped:
            self._take(await self._next_fact())
            # A queue that is not empty gives the next fact at once; others want the loop, too.
            await asyncio.sleep(0)
        while not self._facts.empty():
            self._take(self._facts.get_nowait())  # a reload asked too late has its verdict, too
        self._feeding.close()
        self._templates.end_all_but(())
        self._waiters.end(f"{self.name} was stopped meanwhile")

    async def _next_fact(self) -> Fact:
        deadline = self.fleet.deadline
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await self._facts.get()
        except TimeoutError:
            return Tick()

    def _take(self, fact: Fact) -> None:
        self._note(fact)
        trial = self.fleet.trial
        actions = self.fleet.handle(fact, self._around.loop.time())
        if self.fleet.trial and self.fleet.trial is not trial:
            self._verdicts.measure(self._users.of(self.fleet.trial.spec))
        for action in actions:
            self._perform(action)
        self._after(fact)

    def _note(self, fact: Fact) -> None:
        match fact:
            case WorkerReady():
                if running := self.running.get(fact.worker):
                    took = self._around.loop.time() - running.started_at
                    log.info("worker ready", worker=running.name, pid=running.pid, took=took)
            case WorkerStopping():
                if running := self.running.get(fact.worker):
                    log.warning("worker stops by itself", worker=running.name, pid=running.pid)
                    self.passing.abandon(running)
            case WorkerExited():
                self._bury(fact.worker, fact.status)
            case SpawnFailed():
                if unmade := self.running.pop(fact.worker, None):
                    unmade.close()
                    self.passing.detach(unmade)
            case _:
                pass

    def _bury(self, id: WorkerId, status: int) -> None:
        running, worker = self.running.pop(id), self._worker(id)
        state, served = worker.state, worker.served(self._around.loop.time())
        words = running.last_words("")
        if status == 0 and state is State.STARTING:
            words = words.plus(WENT_AWAY)
        self._last_words.setdefault(id, words)
        running.close()
        self.passing.detach(running)
        self._verdicts.count_exit(state)
        expected = state in (State.DRAINING, State.KILLED)
        tell = log.info if expected else log.error
        clean = expected and status in running.spec.clean_exits
        how = "clean" if clean else describe_exit(status)
        tell("worker ended", worker=running.name, pid=running.pid, was=state, how=how,
             served=served)  # fmt: skip
        self._leftovers.add(running.inodes, running.name)
        self._leftovers.end(self._used)

    def _after(self, fact: Fact) -> None:
        match fact:
            case WorkerReady():
                self.inspect(f"after {self.name}@{fact.worker} became ready")
                self._report_on(fact.worker, "is ready")
            case WorkerExited():
                self.inspect(f"after {self.name}@{fact.worker} ended")
                self._report_on(fact.worker, describe_exit(fact.status))
            case _:
                pass
        weights = dict(self.fleet.fed)
        self._feeding.keep_up(weights, self._users.fed(self.fleet, weights))
        self._feeding.keep_waiting(self.fleet.unquiet)
        fleet = self.fleet
        needed = () if fleet.stopping else (fleet.current, fleet.trial)
        self._templates.end_all_but({each.number for each in needed if each})
        self._waiters.look()
        self._changed()

    # --- Commands ------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Feed():
                weights = dict(action.leases)
                self._feeding.feed(weights, self._users.fed(self.fleet, weights))
            case Drain():
                self._drain(action)
            case Kill():
                self._kill(action)
            case CutOver():
                log.info("cut-over", service=self.name, generation=action.generation)
                self._report("cut-over: new connections go to the new generation")
            case Serving():
                log.info("serving", service=self.name, generation=action.generation)
            case Committed():
                self._tell_verdict(action)
                self._see_off()
            case Aborted():
                self._tell_verdict(action)
            case Stopped():
                log.info("stopped", service=self.name)
            case _:
                assert_never(action)

    def _spawn(self, command: Spawn) -> None:
        listeners = self._users.of(command.spec)
        try:
            running = Running(
                command,
                listeners,
                self._around,
                self._facts.put_nowait,
                template=self._templates.of(command),
            )
        except (SpawnError, ListenError) as error:
            log.error("cannot start worker", worker=self._name(command.worker), error=error.what)
            self._facts.put_nowait(SpawnFailed(worker=command.worker, error=error.what))
            return
        self.running[command.worker] = running
        self.passing.attach(running)
        self._feeding.expect(command.lease, listeners)
        if running.pid:
            log.info("worker started", worker=running.name, pid=running.pid)

    def _drain(self, command: Drain) -> None:
        # A worker that could not be started has its SpawnFailed on the way.
        if running := self.running.get(command.worker):
            log.info("worker draining", worker=running.name, why=command.why)
            if self.fleet.stopping:
                self._feeding.accept_no_more()
                running.drain()
                return
            # One after the other: a process that ends takes a burst of CPU from live traffic.
            loop = self._around.loop
            self._drain_at = max(loop.time(), self._drain_at)
            loop.call_at(self._drain_at, running.drain)
            self._drain_at += min(DRAIN_PACE, 1 / len(self.running))

    def _kill(self, command: Kill) -> None:
        running = self.running.get(command.worker)
        if running is None:
            return
        if not running.ready:
            words = running.last_words(f"to be killed: {command.why}")
            self._last_words[running.id] = words.plus(running.what_was_seen())
        self.killed += running.ready
        log.warning("worker killed", worker=running.name, why=command.why)
        running.kill()

    def _tell_verdict(self, outcome: Committed | Aborted) -> None:
        draining = sum(w.state is State.DRAINING for w in self.fleet.workers())
        number = outcome.generation
        if isinstance(outcome, Committed):
            log.info("committed", service=self.name, generation=number, draining=draining)
            self._verdicts.committed(outcome, draining)
        else:
            log.error("aborted", service=self.name, generation=number, reason=outcome.reason)
            words = self._words_of(outcome.worker) if outcome.worker else Words()
            self._verdicts.aborted(outcome, draining, words)
        self._last_words.clear()

    def _see_off(self) -> None:
        """Let nobody come any more to listeners that are removed, and wait until all are served."""
        removed = {
            address
            for generation in self.fleet.generations.values()
            if self.fleet.current and generation.phase is Phase.RETIRING
            for address in generation.spec.removed(self.fleet.current.spec)
        }
        for address in removed:
            if not self._is_kept(address, self):
                self._users.listener(address).refuse()
        if removed:
            self._feeding.wait_anew(self._users.unquiet(self.fleet, self.addresses))

    # --- Small things --------------------------------------------------------------------------

    def _report_on(self, id: WorkerId, what: str) -> None:
        if self.fleet.trial and id.generation == self.fleet.trial.number:
            self._report(f"{self._name(id)} {what}")

    def _report(self, message: str) -> None:
        if self.fleet.trial:
            self._verdicts.report(self.fleet.trial, message)

    def _worker(self, id: WorkerId) -> Worker:
        return self.fleet.generations[id.generation].workers[id.slot]

    def _name(self, id: WorkerId) -> str:
        return f"{self.name}@{id}"

    def _words_of(self, id: WorkerId) -> Words:
        if (words := self._last_words.get(id)) is not None:
            return words
        running = self.running.get(id)
        return running.last_words("taken back") if running else Words()

    def _ways(self) -> Ways:
        serving = self.fleet.current or self.fleet.trial
        if serving and serving.spec.accept is Accept.DISPATCH:
            self.passing.configure(serving.spec)
        return ways(self.fleet, self._users)
