"""The state machine of one service: which worker starts, drains, is killed; which rollout commits.

`Fleet.handle(fact, now)` is told what happened and returns what to do. It reads no clock and does
no I/O, so any interleaving of exits, readiness, reloads, signals and time can be replayed.

The policy is level-triggered. Facts only change records; `_settle` then compares what there is
with what is wanted (targets.py, leases.py), again and again, until nothing is left to do:

1. deadlines of workers that have passed are acted on,
2. the rollout under way is judged: cut over, commit, abort or wait,
3. a reload that waits becomes the next rollout,
4. the leases to feed are worked out,
5. each generation is drained to its target,
6. and when all that has come to rest, each is filled to its target.

Rollouts (2, 3) and queues (4) are decided here; turnover.py lets workers come and go (1, 5, 6).
The caller must perform the actions in order, before it waits for anything, and must come back with
a Tick at `deadline`.
"""

from __future__ import annotations

import math
from typing import assert_never

from sockmgr.config.spec import Spec
from sockmgr.fleet import turnover
from sockmgr.fleet.generation import HURRY, STEADY, Generation, Worker, rollout_timeout
from sockmgr.fleet.leases import Leases
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    ClientsWait,
    Committed,
    CutOver,
    Fact,
    Feed,
    FeedFailed,
    Hung,
    Phase,
    Quiet,
    Recycle,
    Refuse,
    Reload,
    Scale,
    Serving,
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
from sockmgr.fleet.records import FleetRecords

STOPPING = "the manager is stopping"
FEED_AGAIN = 1.0  # seconds after which a Feed that failed is tried once more
SPAWN_BATCH = 8  # spawns in one go; the shell's loop breathes in between


class Fleet(FleetRecords):
    """All workers of all generations of one service, and the rollout under way."""

    def __init__(self) -> None:
        super().__init__()
        self._out: list[Action] = []
        self._budget = 0

    def handle(self, fact: Fact, now: float) -> list[Action]:
        """Take one fact and return what to do, in order. Call again at `deadline` with a Tick."""
        self._now, self._out, self._budget = now, [], SPAWN_BATCH
        self._apply(fact)
        self._settle()
        return self._out

    # --- Facts ---------------------------------------------------------------------------------

    def _apply(self, fact: Fact) -> None:
        match fact:
            case WorkerReady():
                self._ready(fact.worker)
            case WorkerExited():
                done = self.recycles(fact, self._now)
                self._exited(fact.worker, describe_exit(fact.status), fact.status, done)
            case WorkerStopping():
                self._leaves(fact)
            case SpawnFailed():
                self._exited(fact.worker, f"could not be started: {fact.error}", None)
            case ClientsWait():
                for generation in self._targets().starving:
                    generation.not_before = self._now + HURRY
            case Quiet():
                self.unquiet.pop(fact.lease, None)
            case FeedFailed():
                self._feed_failed(fact)
            case Tick():
                pass
            case _:
                self._ask(fact)

    def _ask(self, fact: Start | Reload | Scale | Recycle | Hung | Stop | StopNow) -> None:
        match fact:
            case Start():
                self._start(fact)
            case Reload():
                self._request(fact)
            case Scale():
                self._scale(fact.workers)
            case Recycle() | Hung():
                self._replace(fact)
            case Stop():
                self._stop()
            case StopNow():
                self._stop()
                for worker in self.workers():
                    self._out += turnover.kill(worker, "stop now", self._now)
            case _:
                assert_never(fact)

    def _feed_failed(self, fact: FeedFailed) -> None:
        self.feed_again = self._now + FEED_AGAIN
        if self.trial and not self.trial.fault:
            self.trial.fault = f"new connections cannot be given to its workers: {fact.error}"

    def _start(self, fact: Start) -> None:
        self.last += 1
        spec, lease, left = fact.spec, self._leases().for_all(fact.spec), fact.left
        if left and lease is not None:
            lease, left = left[0], left[1:]
        self.unquiet = dict.fromkeys(left, self._now)
        self.current = Generation(
            number=self.last, spec=spec, lease=lease, wanted=spec.workers, since=self._now
        )
        self.current.become(Phase.CURRENT, self._now)
        self.generations[self.last] = self.current

    def _request(self, fact: Reload) -> None:
        if self.stopping:
            self._refuse((fact.request,))
            return
        # The latest spec holds the change of everybody who asked before it.
        self.pending = fact
        self.pending_requests += (fact.request,)

    def _scale(self, workers: int) -> None:
        for generation in filter(None, (self.current, self.trial)):
            generation.rolling = not generation.instant
            generation.wanted = workers
        trial = self.trial
        if trial and trial.phase is Phase.BOOTING:
            trial.deadline = max(trial.deadline, trial.since + self._time_for(trial.spec, workers))

    def _ready(self, id: WorkerId) -> None:
        worker = self._find(id)
        if worker is None or worker.state is not State.STARTING:
            return
        self.generations[id.generation].see_ready(worker, self._now)
        if worker.lease in self.unquiet:
            self.unquiet[worker.lease] = self._now  # only now somebody empties it

    def _exited(self, id: WorkerId, how: str, status: int | None, done: bool = False) -> None:
        worker = self._find(id)
        if worker is None:
            return
        was = worker.state
        worker.become(State.GONE, self._now)
        del self.generations[id.generation].workers[id.slot]
        if was not in (State.DRAINING, State.KILLED):
            self._lost(worker, how, status, done)

    def _leaves(self, fact: WorkerStopping) -> None:
        worker = self._find(fact.worker)
        if worker is None or worker.state is not State.READY:
            return
        done = self._leases().has_served(worker, self._now, took=fact.took)
        drain_timeout = self.generations[fact.worker.generation].spec.drain_timeout
        worker.become(State.DRAINING, self._now, self._now + drain_timeout)
        worker.leaving = True
        self._lost(worker, "stopped by itself", None, done)

    def _lost(self, worker: Worker, how: str, status: int | None, done: bool) -> None:
        """Count a worker that nobody told to go; `done`: it had served, and ended cleanly."""
        generation = self.generations[worker.id.generation]
        if done:
            generation.recycle(worker)
            return
        if generation is self.trial:
            generation.fail(worker, how, status, self._now)
        generation.back_off(self._now, steady=self._now - worker.ready_at >= STEADY)

    def _replace(self, fact: Recycle | Hung) -> None:
        worker, trial = self._find(fact.worker), self.trial
        if worker is None or not worker.active:
            return
        worker.recycle = fact.why
        worker.hung = worker.hung or isinstance(fact, Hung)
        if isinstance(fact, Hung) and trial and trial.number == worker.id.generation:
            # Its code is at fault: a successor would hang, too.
            trial.fault, trial.culprit = f"worker {worker.id} {fact.why}", worker.id

    def _stop(self) -> None:
        if not self.stopping:
            self.stopping_since = self._now
            self._out.append(Refuse())
            # Who serves may go when those who wait have been served.
            self.unquiet |= dict.fromkeys(dict(self.fed), self._now)
        if self.trial:
            self.trial.fault, self.trial.culprit = STOPPING, None
        if self.pending:
            self._refuse(self.pending_requests)
            self.pending, self.pending_requests = None, ()

    def _refuse(self, requests: tuple[int, ...]) -> None:
        self._out.append(_aborted(self.current, requests, 0, STOPPING))

    # --- Settling ------------------------------------------------------------------------------

    def _settle(self) -> None:
        seen = (-1, -1)
        while seen != (len(self._out), self.last):
            seen = (len(self._out), self.last)
            self._out += turnover.expire(self._targets())
            self._judge()
            self._forget_gone()
            self._begin()
            leases = self._leases()
            self._give_up(leases)
            self._feed(leases)
            self._out += turnover.limit(leases.targets)
            self._out += turnover.drain(leases)
            if seen == (len(self._out), self.last):
                self._fill(leases)
        self._tell()

    def _forget_gone(self) -> None:
        for generation in list(self.generations.values()):
            if generation.phase is Phase.RETIRING and not generation.workers:
                generation.become(Phase.GONE, self._now)
                del self.generations[generation.number]

    def _tell(self) -> None:
        if self.stopping and not self.stopped and not any(self.workers()):
            self.stopped = True
            self._out.append(Stopped())
        if self.current and not self.served and not self.stopping and self.current.full:
            self.served = True
            self._out.append(Serving(generation=self.current.number))

    def _judge(self) -> None:
        trial = self.trial
        if trial is None:
            return
        if trial.fault:
            self._abort(trial)
        elif trial.phase is Phase.PROBATION and (self._now >= trial.deadline or not trial.wanted):
            self._commit(trial)  # scaled to nothing, it has nothing to prove
        elif trial.phase is Phase.BOOTING and trial.full:
            trial.become(Phase.PROBATION, self._now, self._now + trial.spec.rollout.probation)
            self._out.append(CutOver(generation=trial.number))
        elif trial.phase is Phase.BOOTING and self._now >= trial.deadline:
            trial.fault = f"not all of {trial.wanted} workers were ready in time"
            self._abort(trial)

    def _commit(self, trial: Generation) -> None:
        old, self.current, self.trial = self.current, trial, None
        trial.become(Phase.CURRENT, self._now)
        self.served = True
        if old:
            self._retire(old)
            if old.spec.removed(trial.spec):
                # Until now others may have come there, and nobody else takes them.
                left = old.served - dict(self.fed).keys()
                self.unquiet |= dict.fromkeys(sorted(left), self._now)
        self._out.append(Committed(requests=trial.requests, generation=trial.number))

    def _abort(self, trial: Generation) -> None:
        self.trial = None
        self._retire(trial)
        self._out.append(
            _aborted(self.current, trial.requests, trial.number, trial.fault, trial.culprit)
        )

    def _retire(self, generation: Generation) -> None:
        patience = generation.spec.drain_timeout
        if self.current:
            # It may have to serve until the current generation is whole.
            patience += rollout_timeout(self.current.spec, self.current.wanted, generation.spec)
        generation.become(Phase.RETIRING, self._now, self._now + patience)

    def _begin(self) -> None:
        if self.pending is None or self.trial:
            return
        spec, current = self.pending.spec, self.current
        wanted = spec.workers
        if current and spec.workers == current.spec.workers:
            # A number that `scale` set stands until the config's own number changes.
            wanted = current.wanted
        self.last += 1
        lease, deadline = self._leases().for_all(spec), self._now + self._time_for(spec, wanted)
        self.trial = Generation(
            number=self.last,
            spec=spec,
            lease=lease,
            wanted=wanted,
            since=self._now,
            deadline=deadline,
            requests=self.pending_requests,
        )
        self.generations[self.last] = self.trial
        self.pending, self.pending_requests = None, ()

    def _time_for(self, spec: Spec, wanted: int) -> float:
        return rollout_timeout(spec, wanted, self.current.spec if self.current else None)

    def _give_up(self, leases: Leases) -> None:
        for lease in [n for n in self.unquiet if self._now >= leases.given_up_at(n)]:
            del self.unquiet[lease]

    def _feed(self, leases: Leases) -> None:
        if self.stopping:
            return  # nobody comes any more
        to_feed = leases.to_feed()
        if not to_feed or (to_feed == self.fed and self._now < self.feed_again):
            return
        self.feed_again = math.inf
        before, self.fed = dict(self.fed), to_feed
        self.unquiet |= dict.fromkeys(before.keys() - dict(to_feed), self._now)
        for lease, _ in to_feed:
            self.unquiet.pop(lease, None)
        self._out.append(Feed(leases=to_feed))

    def _fill(self, leases: Leases) -> None:
        spawns, self._breathe = turnover.fill(leases, self._budget)
        self._budget -= len(spawns)
        self._out += spawns


def _aborted(
    kept: Generation | None,
    requests: tuple[int, ...],
    number: int,
    why: str,
    worker: WorkerId | None = None,
) -> Aborted:
    return Aborted(
        requests=requests,
        generation=number,
        kept=kept.number if kept else 0,
        ready=kept.ready if kept else 0,
        reason=why,
        worker=worker,
    )
