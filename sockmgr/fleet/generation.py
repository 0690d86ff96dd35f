"""The records of a fleet, generations and their workers, and the steps each may take.

They count what befalls them; only the fleet acts on it (fleet.py, turnover.py). Their place in life
changes only through `become`, and a worker that belongs to a roster changes by its methods only,
so that the roster's counts follow.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sockmgr.config.hooks import Moment
from sockmgr.config.spec import Canary, Delay, Spec
from sockmgr.fleet.group import Gate, Together
from sockmgr.fleet.lease_book import Kind
from sockmgr.fleet.limits import Wear, spread
from sockmgr.fleet.messages import Phase, State, WorkerId
from sockmgr.fleet.roster import Roster, useful

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
        Phase.CANARY: "enough workers are ready for a canary, and its hooks allow it: a share",
        Phase.PROBATION: "all its workers are ready, and its hooks allow it: cut-over",
        Phase.CURRENT: "it is the first: there is nothing to fall back to",
        Phase.RETIRING: "aborted: a hook, failed starts, broken code, too late, a hang, stop",
    },
    Phase.CANARY: {
        Phase.PROBATION: "it passed its last step, or was promoted: cut-over",
        Phase.BOOTING: "the same, and more of its workers are to start (surge)",
        Phase.RETIRING: "taken back: a worker died, hung or was unhealthy, a check or a comparison "
        "failed, somebody or a newer reload asked for it, stop",
    },
    Phase.PROBATION: {
        Phase.CURRENT: "no worker died or hung in probation (recycled ones did neither): commit",
        Phase.RETIRING: "aborted: a worker died, hung or was unhealthy in probation, stop",
    },
    Phase.CURRENT: {Phase.RETIRING: "its successor committed"},
    Phase.RETIRING: {Phase.GONE: "its last worker is gone"},
    Phase.GONE: {},
}


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """One process of a generation, as the fleet knows it."""

    id: WorkerId
    lease: int
    since: float
    deadline: float
    state: State = State.STARTING
    ready_at: float = math.inf
    recycle: str = ""
    worn: Wear | None = None  # it has reached a limit, and waits for its turn to be recycled
    rescue: bool = False  # started to empty a queue that others left, and for nothing else
    hung: bool = False  # it takes nothing, though it lives
    unhealthy: str = ""  # which probes it fails, while it serves
    leaving: bool = False  # it drains, and not because we told it to: it takes nothing any more
    finishing: bool = False  # it drains, and was told to end now
    roster: Roster | None = field(default=None, repr=False)  # that it is counted in, while it lives
    arrival: int = field(default=0, repr=False)  # its place there: a slot may be had again

    def become(self, state: State, now: float, deadline: float = math.inf) -> None:
        """Step to `state`; an illegal step raises and changes nothing."""
        if state not in WORKER_STEPS[self.state]:
            raise ValueError(f"worker {self.id} cannot go from {self.state} to {state}")
        with self._counted_anew():
            self.state, self.since, self.deadline = state, now, deadline
            if state is State.READY:
                self.ready_at = now

    def leave(self) -> None:
        """Note that it drains unasked, and takes nothing from its queue any more."""
        with self._counted_anew():
            self.leaving = True

    def be_replaced(self, why: str, *, hung: bool = False) -> None:
        """Note that it is to go as soon as a successor is ready; who is `hung` takes nothing."""
        with self._counted_anew():
            self.recycle, self.hung = why, self.hung or hung

    def wear_out(self, worn: Wear) -> None:
        """Note that it has reached a limit, unless it had before; it serves on until its turn."""
        with self._counted_anew():
            self.worn = self.worn or worn

    def be_unhealthy(self, why: str) -> None:
        """Note which probe it fails, or that it fails none any more."""
        with self._counted_anew():
            self.unhealthy = why

    def finish(self, deadline: float) -> None:
        """Note that it was told to end now, and is killed at `deadline`, or when it was to be."""
        with self._counted_anew():
            self.finishing, self.deadline = True, min(self.deadline, deadline)

    def put_off(self, deadline: float) -> None:
        """Let something be due at `deadline` instead."""
        with self._counted_anew():
            self.deadline = deadline

    @contextlib.contextmanager
    def _counted_anew(self) -> Iterator[None]:
        roster = self.roster
        if roster is None:
            yield
            return
        roster.take_out(self)
        yield
        roster.put_in(self)

    def served(self, now: float) -> int:
        """Return for how many seconds it was ready, begun ones in full; 0 if it never was."""
        return math.ceil(now - self.ready_at) if self.ready_at < now else 0

    @property
    def active(self) -> bool:
        """Whether it serves or will."""
        return self.state in (State.STARTING, State.READY)

    @property
    def kind(self) -> Kind:
        """What it is counted as, where those that are alike are counted together."""
        return Kind(self.id.generation, self.state, self.hung, self.leaving, self.rescue)


@dataclass(slots=True, kw_only=True, eq=False)
class Generation:
    """One spec, numbered, and its workers: they share `lease`, or each has its own (None)."""

    number: int
    spec: Spec
    lease: int | None
    wanted: int
    since: float
    roster: Roster
    deadline: float = math.inf
    requests: tuple[int, ...] = ()
    phase: Phase = Phase.BOOTING
    failed_starts: int = 0
    failures: int = 0
    unseen: int = 0  # workers that were recycled since the last one was seen to be ready
    not_before: float = -math.inf
    fault: str = ""
    culprit: WorkerId | None = None
    passed: frozenset[Moment] = frozenset()  # the hooks that let it go on
    rolling: bool = False  # it was not instant once, so some of it may serve already
    step: int = 0  # how many steps of its canary it has passed, or need not take
    checked: bool = False  # the check of the present step has passed
    together: Together | None = None  # the group that it goes with, also when it has committed
    failed: str = ""  # the service of its group with which it had to go back
    held_until: float = -math.inf  # it starts nobody before, unless those that it is after serve
    early: int = 0  # workers in a row that reached a limit as soon as they were ready
    recycle_from: float = -math.inf  # no worker is recycled for a limit before
    doubtful: bool = False  # one was replaced for its health, and none was seen to be healthy since

    def become(self, phase: Phase, now: float, deadline: float = math.inf) -> None:
        """Step to `phase`; an illegal step raises and changes nothing."""
        if phase not in GENERATION_STEPS[self.phase]:
            raise ValueError(f"generation {self.number} cannot go from {self.phase} to {phase}")
        self.phase, self.since, self.deadline = phase, now, deadline

    @property
    def workers(self) -> Mapping[int, Worker]:
        """The living workers by slot, in the order in which they came."""
        return MappingProxyType(self.roster.by_slot)

    @property
    def leases(self) -> Collection[int]:
        """The leases that its workers serve, rescues left out."""
        return self.roster.leases.keys() if self.lease is None else (self.lease,)

    @property
    def served(self) -> set[int]:
        """The leases from which its workers take connections. O(those)."""
        if self.lease is None:
            return {worker.lease for worker in self.roster.active() if worker.kind.serves}
        rescued = {w.lease for w in self.roster.rescues.values() if w.kind.serves}
        return rescued | {self.lease} if self.ready else rescued

    @property
    def members(self) -> list[Worker]:
        """The workers that count: active, no rescue, not being replaced. O(n), for people."""
        members = (place.worker for place in self.roster.members)
        return sorted(members, key=lambda worker: worker.arrival)

    @property
    def headcount(self) -> int:
        return len(self.roster.members)

    @property
    def ready(self) -> int:
        """The number of workers that can take a connection."""
        return self.roster.ready

    @property
    def full(self) -> bool:
        return useful(self.roster.members) >= self.wanted

    @property
    def instant(self) -> bool:
        """Whether all its workers may start beside the old ones: one instant of cut-over.

        In a group there is no other, though `scale` may have set more than `surge` allows.
        """
        beside = self.wanted if self.together else self.spec.rollout.surge.above(self.wanted)
        return not self.rolling and beside >= self.wanted

    @property
    def canary(self) -> Canary | None:
        """By what it has yet to prove itself; None if it need not, or has."""
        canary = self.spec.rollout.canary
        return canary if canary and self.step < len(canary.shares) else None

    @property
    def share(self) -> int:
        """How many percent of the new connections it is to get; 0 if that is not by a share."""
        canary = self.spec.rollout.canary
        if canary is None or self.phase is not Phase.CANARY:
            return 0
        # One that has passed and is not whole yet keeps its last share.
        return canary.shares[min(self.step, len(canary.shares) - 1)]

    @property
    def is_met(self) -> bool:
        """Whether clients are meant for it: it is the current one, was, or was cut over."""
        retired = self.phase is Phase.RETIRING and not self.fault
        return retired or self.phase in (Phase.CURRENT, Phase.PROBATION)

    @property
    def may_be_met(self) -> bool:
        """Whether it may be fed for want of better.

        Not where it gets a listener from another service, which has the clients until the cut-over.
        """
        return self.is_met or not (self.together and self.spec.foreign)

    @property
    def staffed(self) -> bool:
        """Whether as many workers are ready as it may have beside the old ones."""
        beside = self.spec.rollout.surge.above(self.wanted)
        return useful(self.roster.members) >= min(self.wanted, beside)

    def take_step(self, now: float) -> None:
        """Begin the present step of its canary."""
        canary = self.spec.rollout.canary
        held = canary is not None and canary.hold and self.step == len(canary.shares) - 1
        lasts = math.inf if canary is None or held else canary.seconds
        self.since, self.deadline, self.checked = now, now + lasts, False

    def gate_at(self, now: float) -> Gate:
        """Return the gate of its rollout that it stands at, as far as it is concerned itself."""
        if self.phase is Phase.PROBATION:
            # Scaled to nothing, it has nothing to prove.
            return Gate.COMMIT if now >= self.deadline or not self.wanted else Gate.NONE
        # Not before all are ready: half a generation would have to carry the whole load.
        return Gate.CUT_OVER if self.full and not (self.canary or self.owes_hook) else Gate.NONE

    def may(self, gate: Gate) -> bool:
        """Whether its group, if it goes with one, lets it pass this gate."""
        return self.together is None or self.together.let >= gate

    @property
    def is_decided(self) -> bool:
        """Whether it must commit, since others of its group may have done so."""
        return self.together is not None and self.together.let is Gate.COMMIT

    @property
    def sick(self) -> bool:
        """Whether there are workers that serve, and all of them fail their probes."""
        return 0 < self.roster.number(State.READY) == len(self.roster.unhealthy)

    def owes(self, moment: Moment) -> bool:
        """Whether it has a hook of this moment that has not let it go on yet."""
        return moment not in self.passed and self.spec.hooks.at(moment) is not None

    @property
    def owes_hook(self) -> bool:
        """Whether it may not be cut over before a hook has let it go on."""
        return self.owes(Moment.BEFORE) or self.owes(Moment.READY)

    def see_ready(self, worker: Worker, now: float, draw: float) -> None:
        """Note that `worker` can take connections now, until it has reached its max_age."""
        worker.become(State.READY, now, now + spread(self.spec.max_age, draw))
        self.unseen = 0

    def condemn(self, fault: str, culprit: WorkerId | None = None) -> None:
        """Note why it is to be taken back, and whose last output tells most of that."""
        self.fault, self.culprit = fault, culprit

    def fail(self, worker: Worker, how: str, status: int | None, now: float) -> None:
        """Count that `worker` ended unasked, while this generation is on trial."""
        self.culprit = worker.id
        # A worker that was ready had clients, so its death condemns the generation at once.
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
    # Each batch may take a whole ready_timeout, and so may each start that is allowed to fail.
    boots = math.ceil(wanted / at_once) + rollout.max_failed_starts
    timeout = spec.ready_timeout * boots
    if rollout.exclusive and old:
        timeout += 2 * old.drain_timeout
    return timeout
