"""One service: feeds its fleet with facts and performs, at once, the commands it returns.

Nothing else decides anything about its workers. Between `handle` and the last action performed
nothing is awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable
from typing import assert_never

from sockmgr.core.errors import ControlError, ListenError, SpawnError
from sockmgr.core.fleet import Fleet
from sockmgr.core.model import (
    Aborted,
    Action,
    Address,
    Committed,
    CutOver,
    Drain,
    Fact,
    Feed,
    Kill,
    Recycle,
    Reload,
    Scale,
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
    describe_exit,
)
from sockmgr.core.report import Progress, Verdict
from sockmgr.feeding import Feeding
from sockmgr.kernel import memory
from sockmgr.kernel.process import strays
from sockmgr.kernel.readiness import descendants
from sockmgr.listener import Listener
from sockmgr.log import Log
from sockmgr.running import KILL_SIGNAL, Running, Surroundings
from sockmgr.verdicts import Verdicts

log = Log("sockmgr")

DRAIN_PACE = 0.1  # seconds between two stop signals, but all are sent within a second
MEASURED = 4  # workers whose memory is measured to tell what one more would need
AT_EVERY_START = "shrank the backlog"  # by servers that call listen() with a backlog of their own
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
    ) -> None:
        self.name = name
        self.fleet = Fleet()
        self.running: dict[WorkerId, Running] = {}
        self._facts: asyncio.Queue[Fact] = asyncio.Queue()
        self._around, self._listener, self._changed = around, listener, changed
        self._verdicts = Verdicts(name, around.loop)
        self._feeding = Feeding(tasks, self._facts.put_nowait)
        self._left: dict[frozenset[int], str] = {}  # sockets -> the worker that had them last
        self._last_words: dict[WorkerId, tuple[str, ...]] = {}
        self._drain_at = 0.0
        self._told: set[str] = set()
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # --- What others ask -----------------------------------------------------------------------

    def start(self, spec: Spec) -> None:
        """Run `spec`, whatever it takes: there is nothing to fall back to."""
        left = self._feeding.adopt(self._listeners_of(spec))
        self._facts.put_nowait(Start(spec=spec, left=left))

    def reload(self, spec: Spec, progress: Callable[[Progress], None]) -> asyncio.Future[Verdict]:
        """Replace what runs by `spec`; the future holds the verdict about it."""
        number, verdict = self._verdicts.ask(progress)
        self._facts.put_nowait(Reload(spec=self._that_fits(spec), request=number))
        return verdict

    async def scale(self, workers: int) -> None:
        """Want `workers` from now on; return when just as many are ready, raise if that fails."""
        self._facts.put_nowait(Scale(workers=workers))
        serving = self.fleet.current or self.fleet.trial
        patience = serving.spec.ready_timeout * (workers + 1) if serving else 0.0
        try:
            async with asyncio.timeout(patience):
                await self._until(lambda: self._serves_with(workers))
        except TimeoutError:
            ready = serving.ready if serving else 0
            raise ControlError(
                f"{self.name} has {ready} of {workers} workers after {patience:g} s",
                means="it goes on trying",
                do="the manager's log says why they fail to start",
            ) from None

    def serving(self) -> asyncio.Future[None]:
        """Return what is done once all wanted workers are ready."""
        return self._until(lambda: bool(self.fleet.current and self.fleet.current.full))

    def stop(self) -> asyncio.Future[None]:
        """Drain everything; the future is done when no worker is left."""
        self._facts.put_nowait(Stop())
        return self._until(lambda: self.fleet.stopped)

    def stop_now(self) -> asyncio.Future[None]:
        """Kill everything; the future is done when no worker is left."""
        self._facts.put_nowait(StopNow())
        return self._until(lambda: self.fleet.stopped)

    def inspect(self, occasion: str) -> None:
        """Look at the listeners, mend what workers did to them, and tell when that was."""
        for address in self.addresses:
            for finding in self._listener(address).inspect():
                tell = log.warning
                if AT_EVERY_START in finding:  # a habit of servers, and no fault
                    tell = log.debug if finding in self._told else log.info
                    self._told.add(finding)
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
        found = self._end_strays()
        self._left = {inodes: name for inodes, name in self._left.items() if inodes in found}

    @property
    def wanted(self) -> int:
        """How many workers are wanted now."""
        serving = self.fleet.current or self.fleet.trial
        return serving.wanted if serving else 0

    @property
    def pids(self) -> set[int]:
        """The processes whose exit we hear of by ourselves."""
        return {pid for running in self.running.values() for pid in running.pids}

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
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(ControlError(f"{self.name} was stopped meanwhile"))

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
            self._verdicts.measure(self._listeners_of(self.fleet.trial.spec))
        for action in actions:
            self._perform(action)
        self._after(fact)

    def _note(self, fact: Fact) -> None:
        match fact:
            case WorkerReady():
                if running := self.running.get(fact.worker):
                    took = self._around.loop.time() - running.started_at
                    log.info("worker ready", worker=running.name, pid=running.pid, took=took)
            case WorkerExited():
                self._bury(fact.worker, fact.status)
            case _:
                pass

    def _bury(self, id: WorkerId, status: int) -> None:
        running, state = self.running.pop(id), self._state(id)
        words = running.output.tail
        if status == 0 and state is State.STARTING:
            words += (WENT_AWAY,)
        self._last_words.setdefault(id, words)
        running.close()
        self._verdicts.count_exit(state)
        expected = state in (State.DRAINING, State.KILLED)
        tell = log.info if expected else log.error
        clean = expected and status in running.spec.clean_exits
        how = "clean" if clean else describe_exit(status)
        tell("worker ended", worker=running.name, pid=running.pid, was=state, how=how)
        self._left[running.inodes] = running.name
        self._end_strays()

    def _end_strays(self) -> set[frozenset[int]]:
        """End what outlived its worker and still holds its queue; return whose queue it was.

        Such a process would go on taking connections meant for the next holder of the queue.
        """
        used = {inode for running in self.running.values() for inode in running.inodes}
        found: set[frozenset[int]] = set()
        for inodes, name in self._left.items():
            # What shares its queue with a worker may be its; the last holder's end tells.
            for pid in () if inodes & used else strays(inodes):
                log.warning("stray process killed", pid=pid, left_by=name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, KILL_SIGNAL)
                found.add(inodes)
        return found

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
        self._feeding.keep_waiting(self.fleet.unquiet)
        for met, future in self._waiters:
            if not future.done() and met():
                future.set_result(None)
        self._waiters = [(met, future) for met, future in self._waiters if not future.done()]
        self._changed()

    # --- Commands ------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Feed():
                weights = dict(action.leases)
                self._feeding.feed(weights, {lease: self._users_of(lease) for lease in weights})
            case Drain():
                self._drain(action)
            case Kill():
                self._kill(action)
            case CutOver():
                log.info("cut-over", service=self.name, generation=action.generation)
                self._report("cut-over: new connections go to the new generation")
            case Serving():
                log.info("serving", service=self.name, generation=action.generation)
            case Committed() | Aborted():
                self._tell_verdict(action)
            case Stopped():
                log.info("stopped", service=self.name)
            case _:
                assert_never(action)

    def _spawn(self, command: Spawn) -> None:
        try:
            running = Running(
                command, self._listeners_of(command.spec), self._around, self._facts.put_nowait
            )
        except (SpawnError, ListenError) as error:
            log.error("cannot start worker", worker=self._name(command.worker), error=error.what)
            self._facts.put_nowait(SpawnFailed(worker=command.worker, error=error.what))
            return
        self.running[command.worker] = running
        log.info("worker started", worker=running.name, pid=running.pid)

    def _drain(self, command: Drain) -> None:
        # A worker that could not be started has its SpawnFailed on the way.
        if running := self.running.get(command.worker):
            log.info("worker draining", worker=running.name, why=command.why)
            if self.fleet.stopping:
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
            running.output.catch_up()
            self._last_words[running.id] = (*running.output.tail, running.what_was_seen())
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
            words = self._words_of(outcome.worker) if outcome.worker else ()
            self._verdicts.aborted(outcome, draining, words)
        self._last_words.clear()

    # --- Small things --------------------------------------------------------------------------

    def _report_on(self, id: WorkerId, what: str) -> None:
        if self.fleet.trial and id.generation == self.fleet.trial.number:
            self._report(f"{self._name(id)} {what}")

    def _report(self, message: str) -> None:
        trial = self.fleet.trial
        if trial:
            news = Progress(
                service=self.name,
                generation=trial.number,
                phase=trial.phase,
                ready=trial.ready,
                wanted=trial.wanted,
                seconds=0.0,
                message=message,
            )
            self._verdicts.tell(trial.requests, news)

    def _that_fits(self, spec: Spec) -> Spec:
        """Surge by as many as memory allows rather than have the kernel kill half-way."""
        some = list(self.running.values())[-MEASURED:]
        each = max((memory.used({r.pid, *descendants(r.pid)}) for r in some), default=0)
        free = memory.available()
        if not each or free is None:
            return spec
        fitting = spec.within(free, each)
        if fitting is not spec:
            surge = str(fitting.rollout.surge)
            log.warning("surge reduced", service=self.name, to=surge, free=free, each=each)
        return fitting

    def _until(self, met: Callable[[], bool]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._around.loop.create_future()
        self._waiters.append((met, future))
        return future

    def _serves_with(self, workers: int) -> bool:
        current = self.fleet.current
        return bool(current and len(current.members) == current.ready == workers)

    def _state(self, id: WorkerId) -> State:
        return self.fleet.generations[id.generation].workers[id.slot].state

    def _name(self, id: WorkerId) -> str:
        return f"{self.name}@{id}"

    def _words_of(self, id: WorkerId) -> tuple[str, ...]:
        running = self.running.get(id)
        return self._last_words.get(id) or (running.output.tail if running else ())

    def _listeners_of(self, spec: Spec) -> tuple[Listener, ...]:
        return tuple(self._listener(listen.address) for listen in spec.listen)

    def _users_of(self, lease: int) -> tuple[Listener, ...]:
        specs = [g.spec for g in self.fleet.generations.values() if g.lease == lease]
        return tuple(dict.fromkeys(each for spec in specs for each in self._listeners_of(spec)))
