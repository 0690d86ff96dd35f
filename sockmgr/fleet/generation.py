"""The records of a fleet, generations and their workers, and the steps each may take.

They count what befalls them; only the fleet acts on it (fleet.py, turnover.py). Their place in life
changes only through `become`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sockmgr.config.spec import Delay, Spec
from sockmgr.fleet.messages import Phase, State, WorkerId

STEADY = 10.0  # a worker that was ready this long did not fail to start
SERVED = 1.0  # one that was seen to be ready this long, and then ends cleanly, did its work
UNSEEN = 3  # of those that were not seen to be ready, as many in a row may have been it
BACKOFF_MAX = 30.0
HURRY = 1.0  # the longest pause while clients wait and nobody is ready

WORKER_STEPS: dict[State, dict[State, str]] = {
    State.STARTING: {
        State.READY: "there is evidence that it serves",
        State.DRAINING: "it is not wanted any more",
        State.KILLED: "it was not ready in time, or all must end now",
        State.GONE: "it exited, or could not be started",
    },
    State.READY: {
        State.DRAINING: "its generation retires, it is surplus or replaced, or it stops by itself",
        State.KILLED: "all must end now",
        State.GONE: "it died, or it ended when its work was done (recycled)",
    },
    State.DRAINING: {
        State.KILLED: "drain_timeout is exceeded, or what max_draining leaves, or all must end now",
        State.GONE: "it finished its work and exited",
    },
    State.KILLED: {State.GONE: "the kernel ended it"},
    State.GONE: {},
}

GENERATION_STEPS: dict[Phase, dict[Phase, str]] = {
    Phase.BOOTING: {
        Phase.PROBATION: "all its workers are ready: cut-over",
        Phase.CURRENT: "it is the first: there is nothing to fall back to",
        Phase.RETIRING: "aborted: failed starts, broken code, not ready in time, a hang, stop",
    },
    Phase.PROBATION: {
        Phase.CURRENT: "no worker died or hung in probation (recycled ones did neither): commit",
        Phase.RETIRING: "aborted: a worker died or hung in probation, stop",
    },
    Phase.CURRENT: {Phase.RETIRING: "its successor committed"},
    Phase.RETIRING: {Phase.GONE: "its last worker is gone"},
    Phase.GONE: {},
}


@dataclass(slots=True, kw_only=True)
class Worker:
    """One process of a generation, as the fleet knows it."""

    id: WorkerId
    lease: int
    since: float
    deadline: float
    state: State = State.STARTING
    ready_at: float = math.inf
    recycle: str = ""
    rescue: bool = False  # started to empty a queue that others left, and for nothing else
    hung: bool = False  # it takes nothing, though it lives
    leaving: bool = False  # it drains, and not because we told it to: it takes nothing any more
    finishing: bool = False  # it drains, and was told to end now

    def become(self, state: State, now: float, deadline: float = math.inf) -> None:
        """Step to `state`; an illegal step raises and changes nothing."""
        if state not in WORKER_STEPS[self.state]:
            raise ValueError(f"worker {self.id} cannot go from {self.state} to {state}")
        self.state, self.since, self.deadline = state, now, deadline
        if state is State.READY:
            self.ready_at = now

    def served(self, now: float) -> int:
        """Return for how many seconds it was ready, begun ones in full; 0 if it never was."""
        return math.ceil(now - self.ready_at) if self.ready_at < now else 0

    @property
    def active(self) -> bool:
        """Whether it serves or will."""
        return self.state in (State.STARTING, State.READY)


@dataclass(slots=True, kw_only=True)
class Generation:
    """One spec, numbered, and its workers: they share `lease`, or each has its own (None)."""

    number: int
    spec: Spec
    lease: int | None
    wanted: int
    since: float
    deadline: float = math.inf
    requests: tuple[int, ...] = ()
    phase: Phase = Phase.BOOTING
    workers: dict[int, Worker] = field(default_factory=dict)
    failed_starts: int = 0
    failures: int = 0
    unseen: int = 0  # workers that were recycled since the last one was seen to be ready
    not_before: float = -math.inf
    fault: str = ""
    culprit: WorkerId | None = None
    rolling: bool = False  # it was not instant once, so some of it may serve already

    def become(self, phase: Phase, now: float, deadline: float = math.inf) -> None:
        """Step to `phase`; an illegal step raises and changes nothing."""
        if phase not in GENERATION_STEPS[self.phase]:
            raise ValueError(f"generation {self.number} cannot go from {self.phase} to {phase}")
        self.phase, self.since, self.deadline = phase, now, deadline

    @property
    def leases(self) -> set[int]:
        """The leases that its workers serve, rescues left out."""
        if self.lease is not None:
            return {self.lease}
        return {w.lease for w in self.workers.values() if not w.rescue}

    @property
    def served(self) -> set[int]:
        """The leases from which its workers take connections."""
        workers = self.workers.values()
        return {w.lease for w in workers if w.state is State.READY and not w.hung}

    @property
    def members(self) -> list[Worker]:
        """The workers that count: active, no rescue, not being replaced."""
        return [w for w in self.workers.values() if w.active and not (w.rescue or w.recycle)]

    @property
    def ready(self) -> int:
        """The number of workers that can take a connection."""
        return sum(
            w.state is State.READY and not (w.rescue or w.hung) for w in self.workers.values()
        )

    @property
    def full(self) -> bool:
        """Whether all wanted workers are ready."""
        return sum(w.state is State.READY for w in self.members) >= self.wanted

    @property
    def instant(self) -> bool:
        """Whether all its workers may start beside the old ones: one instant of cut-over."""
        return not self.rolling and self.spec.rollout.surge.above(self.wanted) >= self.wanted

    def see_ready(self, worker: Worker, now: float) -> None:
        """Note that `worker` can take connections now, until it has reached its max_age."""
        deadline = math.inf
        if (max_age := self.spec.max_age) is not None:
            # Spread over a tenth, so that workers of one age do not all leave at once.
            deadline = now + max_age * (1 - 0.1 * (worker.id.slot % 8) / 8)
        worker.become(State.READY, now, deadline)
        self.unseen = 0

    def fail(self, worker: Worker, how: str, status: int | None, now: float) -> None:
        """Count that `worker` ended unasked, while this generation is on trial."""
        self.culprit = worker.id
        if worker.ready_at <= now:
            self.fault = (
                f"worker {worker.id} {how}, {now - worker.ready_at:.1f} s after it was ready"
            )
            return
        self.failed_starts += 1
        limit = self.spec.rollout.max_failed_starts
        told = f"worker {worker.id} {how}" + ("" if status is None else " before it was ready")
        if status in self.spec.broken_exits:
            self.fault = told
        elif self.failed_starts >= limit:
            self.fault = f"{told} ({self.failed_starts} failed starts, {limit} allowed)"

    def has_served(self, worker: Worker, now: float, *, took: bool, alone: bool) -> bool:
        """Tell whether a worker has done some work, so that a clean end of it is no fault.

        One that took connections has; if another is ready at its queue and it was not seen to be,
        that is believed a few times. So has one that was ready for a while: no loop of programs
        that end as soon as they start is that slow. Where readiness is a guess, that takes longer.
        """
        enough = STEADY if isinstance(self.spec.ready, Delay) else SERVED
        known = worker.ready_at <= now or alone or self.unseen < UNSEEN
        return (took and known) or now - worker.ready_at >= enough

    def recycle(self, worker: Worker) -> None:
        """Let the next start be at once: `worker` has served, whatever others did before."""
        self.failures, self.not_before = 0, -math.inf
        self.unseen += worker.ready_at == math.inf

    def back_off(self, now: float, *, steady: bool) -> None:
        """Put off the next start, longer each time, unless the worker that ended was `steady`.

        By generation and not by slot: a crash loop would dodge that by taking another slot.
        """
        self.failures = 0 if steady else self.failures + 1
        if self.failures:
            self.not_before = now + min(BACKOFF_MAX, 0.1 * 2.0 ** min(self.failures, 12))


def rollout_timeout(spec: Spec, wanted: int, old: Spec | None) -> float:
    """Return how long a rollout to `wanted` workers of `spec` may take until all are ready."""
    rollout = spec.rollout
    at_once = min(rollout.start_concurrency, rollout.surge.above(wanted))
    boots = math.ceil(wanted / at_once) + rollout.max_failed_starts
    timeout = spec.ready_timeout * boots
    if rollout.exclusive and old:
        timeout += 2 * old.drain_timeout
    return timeout
