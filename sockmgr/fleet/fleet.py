"""The state machine of one service: which worker starts, drains, is killed; which rollout commits.

`Fleet.handle(fact, now)` is told what happened and returns what to do. It reads no clock and does
no I/O, so any interleaving of exits, readiness, reloads, signals and time can be replayed.

The policy is level-triggered. Facts only change records; `_settle` then compares what there is
with what is wanted (targets.py, leases.py), again and again, until nothing is left to do:

1. deadlines of workers that have passed are acted on,
2. the rollout under way is judged: cut over, commit, abort or wait,
3. a reload that waits becomes the next rollout,
4. the hook that the rollout waits for is run (hooks.py),
5. the leases to feed are worked out,
6. each generation is drained to its target,
7. and when all that has come to rest, each is filled to its target.

Rollouts (2, 3) and queues (5) are decided here; turnover.py lets workers come and go (1, 6, 7).
The caller must perform the actions in order, before it waits for anything, and must come back with
a Tick at `deadline`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from sockmgr.config.spec import Spec
from sockmgr.fleet import canary, coupling, health, hooks, recycling, turnover
from sockmgr.fleet.coupling import Coupled
from sockmgr.fleet.endings import describe_exit
from sockmgr.fleet.generation import HURRY, STEADY, Generation, Worker, rollout_timeout
from sockmgr.fleet.group import Gate
from sockmgr.fleet.leases import Leases
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    CheckPassed,
    ClientsWait,
    Committed,
    CutOver,
    Fact,
    Feed,
    FeedFailed,
    GoBack,
    Health,
    HookDone,
    Hung,
    Let,
    Phase,
    Promote,
    Quiet,
    Recycle,
    Refuse,
    Released,
    Reload,
    Scale,
    Serving,
    SpawnFailed,
    Start,
    State,
    Stop,
    StopNow,
    Stopped,
    TakeBack,
    Tick,
    Wish,
    WorkerExited,
    WorkerId,
    WorkerReady,
    WorkerStopping,
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
        # Everything is decided for this one instant, so that a replay decides the same.
        self._now, self._out, self._budget = now, [], SPAWN_BATCH
        self._apply(fact)
        self._settle()
        return self._out

    # --- Facts ---------------------------------------------------------------------------------

    def _apply(self, fact: Fact) -> None:
        match fact:
            case WorkerReady():
                self._ready(fact)
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
                self._book.forget(fact.lease)
            case FeedFailed():
                self._feed_failed(fact)
            case Tick():
                pass
            case _:
                self._ask(fact)

    def _ask(self, fact: Wish | Recycle | Hung | CheckPassed | Health | HookDone | Coupled) -> None:
        match fact:
            case Let() | GoBack() | Released():
                coupling.take(self, fact, self._now)
            case HookDone():
                hooks.done(self, fact, self._now)
            case Start():
                self._start(fact)
            case Reload():
                self._request(fact)
            case Scale():
                self._scale(fact.workers)
            case Recycle() | Hung():
                health.replace(self, fact)
            case Promote() | TakeBack() | CheckPassed():
                self._out += canary.hear(self.trial, fact, self._now, self._patience)
            case Health():
                health.see(self, fact)
            case Stop() | StopNow():
                self._stop(now=isinstance(fact, StopNow))
            case _:
                assert_never(fact)

    def _feed_failed(self, fact: FeedFailed) -> None:
        self.feed_again = self._now + FEED_AGAIN
        # The old generation is still fed, as nothing was replaced: so going back loses nobody.
        if self.trial and not self.trial.fault:
            self.trial.condemn(f"new connections cannot be given to its workers: {fact.error}")

    def _start(self, fact: Start) -> None:
        self.last += 1
        spec, lease, left = fact.spec, self._leases().for_all(fact.spec), fact.left
        if left and lease is not None:
            lease, left = left[0], left[1:]
        self._leave(left)
        self.current = Generation(
            number=self.last, spec=spec, lease=lease, wanted=spec.workers, since=self._now,
            step=canary.needless(spec, lease, None), roster=self.roster(),
            held_until=coupling.held(self._now, fact.patience),
        )  # fmt: skip
        self.current.become(Phase.CURRENT, self._now)
        self.add(self.current)

    def _request(self, fact: Reload) -> None:
        if self.stopping:
            self._refuse((fact.request,))
            return
        # The latest spec holds the change of everybody who asked before, and their group, if any.
        together = fact.together or (self.pending.together if self.pending else None)
        self.pending = replace(fact, together=together)
        self.pending_requests += (fact.request,)

    def _scale(self, workers: int) -> None:
        # Some workers of one that rolls may serve already; so they do however few it wants now.
        for generation in filter(None, (self.current, self.trial)):
            generation.rolling = not generation.instant
            generation.wanted = workers
        trial = self.trial
        if trial and trial.phase is Phase.BOOTING:
            # More workers need more time; those that boot lose none if it wants fewer.
            trial.deadline = max(trial.deadline, trial.since + self._time_for(trial.spec, workers))

    def _ready(self, fact: WorkerReady) -> None:
        worker = self.find(fact.worker)
        if worker is None or worker.state is not State.STARTING:  # it was killed meanwhile, say
            return
        self.generations[fact.worker.generation].see_ready(worker, self._now, fact.draw)
        if worker.lease in self.unquiet:
            self._leave([worker.lease])  # only now somebody empties it

    def _exited(self, id: WorkerId, how: str, status: int | None, done: bool = False) -> None:
        worker = self.find(id)
        if worker is None:
            return
        was = worker.state
        worker.become(State.GONE, self._now)
        self.generations[id.generation].roster.remove(worker)
        # The end of a worker that was told to go is no fault, and needs no successor.
        if was not in (State.DRAINING, State.KILLED):
            self._lost(worker, how, status, done)

    def _leaves(self, fact: WorkerStopping) -> None:
        worker = self.find(fact.worker)
        if worker is None or worker.state is not State.READY:
            return
        done = self._leases().has_served(worker, self._now, took=fact.took)
        drain_timeout = self.generations[fact.worker.generation].spec.drain_timeout
        worker.become(State.DRAINING, self._now, self._now + drain_timeout)
        worker.leave()
        self._lost(worker, "stopped by itself", None, done)

    def _lost(self, worker: Worker, how: str, status: int | None, done: bool) -> None:
        """Count a worker that nobody told to go; `done`: it had served, and ended cleanly."""
        generation = self.generations[worker.id.generation]
        if done:
            generation.recycle(worker)
            return
        # A rollout can be taken back for this end; the current generation can only try again.
        if generation is self.trial:
            generation.fail(worker, how, status, self._now)
        generation.back_off(self._now, steady=self._now - worker.ready_at >= STEADY)

    def _stop(self, *, now: bool) -> None:
        if not self.stopping:
            self.stopping_since = self._now
            self._out.append(Refuse())
            # Who serves may go when those who wait have been served: nobody else comes for them.
            self._leave(self._book.weights)
            self._book.awaiting.clear()
        if self.trial:
            self.trial.condemn(STOPPING)
        if self.pending:
            self._refuse(self.pending_requests)
            self.pending, self.pending_requests = None, ()
        if now:
            self._out += turnover.kill_all(self.workers(), "stop now", self._now)

    def _refuse(self, requests: tuple[int, ...]) -> None:
        self._out.append(_aborted(self.current, requests, 0, STOPPING))

    # --- Settling ------------------------------------------------------------------------------

    def _settle(self) -> None:
        seen = (-1, -1)
        # One step may make another possible. A round that has done nothing finds all at rest.
        while seen != (len(self._out), self.last):
            seen = (len(self._out), self.last)
            self._out += turnover.expire(self._targets(), self._late)
            self._out += coupling.tire(self, self._now)
            self._judge()
            self._forget_gone()
            health.heal(self, self._targets())
            self._out += recycling.turn(self)
            self._begin()
            self._out += hooks.turn(self, self._now)
            leases = self._leases()
            for lease in leases.given_up():
                self._book.forget(lease)
            self._feed(leases)
            self._out += turnover.limit(leases.targets)
            self._out += turnover.drain(leases)
            # Starting comes last: whoever drains now may make room for those that are to start.
            if seen == (len(self._out), self.last):
                self._fill(leases)
        self._tell()

    def _forget_gone(self) -> None:
        for generation in list(self.generations.values()):
            if generation.phase is Phase.RETIRING and not generation.workers:
                generation.become(Phase.GONE, self._now)
                self.remove(generation)

    def _tell(self) -> None:
        if self.stopping and not self.stopped and not self.living and not self.hook:
            self.stopped = True
            self._out.append(Stopped())
        if self.current and not self.served and not self.stopping and self.current.full:
            self.served = True
            self._out.append(Serving(generation=self.current.number))
        self.see_down()

    def _judge(self) -> None:
        trial = self.trial
        if trial is None:
            return
        if not trial.owes_hook:
            self._out += canary.judge(trial, self._now, self._patience, newer=bool(self.pending))
        gate = trial.gate_at(self._now)
        if trial.is_decided:
            # Others of its group may have committed: nothing that happens now takes it back.
            self._commit(trial)
        elif trial.fault:
            self._abort(trial)
        elif not trial.may(gate):
            pass  # the deadlines of those that it waits for are theirs
        elif gate is Gate.COMMIT:
            self._commit(trial)
        elif gate is Gate.CUT_OVER:
            trial.become(Phase.PROBATION, self._now, self._now + trial.spec.rollout.probation)
            self._out.append(CutOver(generation=trial.number))
        elif trial.phase is not Phase.PROBATION and (why := hooks.late(self, trial, self._now)):
            # The last worker that failed may say why others are late, but nothing of a hook.
            trial.condemn(why, None if self.hook else trial.culprit)
            self._abort(trial)

    def _commit(self, trial: Generation) -> None:
        # From here on there is no way back: the old generation starts nobody any more.
        old, self.current, self.trial = self.current, trial, None
        trial.become(Phase.CURRENT, self._now)
        self.served = True
        if old:
            self._retire(old)
        self._out.append(Committed(requests=trial.requests, generation=trial.number))

    def _abort(self, trial: Generation) -> None:
        self.trial = None
        self._retire(trial)
        told = _aborted(self.current, trial.requests, trial.number, trial.fault, trial.culprit)
        self._out.append(replace(told, failed=trial.failed))

    def _retire(self, generation: Generation) -> None:
        patience = generation.spec.drain_timeout
        if self.current:
            # It may have to serve until the current generation is whole.
            patience += rollout_timeout(self.current.spec, self.current.wanted, generation.spec)
        generation.become(Phase.RETIRING, self._now, self._now + patience)

    def _begin(self) -> None:
        # One at a time: with two on trial, nobody could say which of them a crash speaks against.
        together = self.pending.together if self.pending else None
        # And one of its group may have another rollout under way.
        if self.pending is None or self.trial or (together and together.let < Gate.START):
            return
        spec, current = self.pending.spec, self.current
        wanted = spec.workers
        if current and spec.workers == current.spec.workers:
            # A number that `scale` set stands until the config's own number changes.
            wanted = current.wanted
        self.last += 1
        held = coupling.held(self._now, self.pending.patience)
        lease = self._leases().for_all(spec)
        self.trial = Generation(
            number=self.last, spec=spec, lease=lease, wanted=wanted, since=self._now,
            deadline=max(held, self._now) + self._time_for(spec, wanted), held_until=held,
            requests=self.pending_requests, together=together, roster=self.roster(),
            step=canary.needless(spec, lease, self.current),
        )  # fmt: skip
        self.add(self.trial)
        self.pending, self.pending_requests = None, ()

    @property
    def _patience(self) -> float:
        return self._time_for(self.trial.spec, self.trial.wanted) if self.trial else 0.0

    def _time_for(self, spec: Spec, wanted: int) -> float:
        return rollout_timeout(spec, wanted, self.current.spec if self.current else None)

    def _feed(self, leases: Leases) -> None:
        if self.stopping:
            return  # nobody comes any more
        to_feed = leases.to_feed()
        # Where nothing is to run, clients wait for those who go, or else for what may come.
        stay = self.current or self.trial or not any(g.ready for g in self.generations.values())
        if (stay and not to_feed) or (to_feed == self.fed and self._now < self.feed_again):
            return
        self.feed_again = math.inf
        # What is fed no longer may hold connections still; what is fed again owes no Quiet.
        before = self._book.weights
        self._book.feed(to_feed)
        self._leave(before.keys() - self._book.weights.keys())
        for lease in self._book.weights.keys() & self.unquiet.keys():
            self._book.forget(lease)
        self._out.append(Feed(leases=to_feed))

    def _leave(self, leases: Iterable[int]) -> None:
        for lease in leases:
            self._book.leave(lease, self._now)

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
    stays, ready = (kept.number, kept.ready) if kept else (0, 0)
    return Aborted(
        requests=requests, generation=number, kept=stays, ready=ready, reason=why, worker=worker
    )
