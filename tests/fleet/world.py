"""A world for a fleet: processes, queues and a clock, all pretended.

It does what the fleet commands, remembers what a real shell would know, and has every promise
checked at every step. It decides nothing: tests say what happens next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, cast

import msgspec

from sockmgr.config.config import Config
from sockmgr.config.hooks import Moment
from sockmgr.config.spec import Delay, Spec
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.generation import SERVED, STEADY, UNSEEN
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    CanaryPassed,
    CanaryStep,
    CheckPassed,
    ClientsWait,
    Committed,
    CutOver,
    Drain,
    EndHook,
    Fact,
    Feed,
    FeedFailed,
    Finish,
    Health,
    HookDone,
    Hung,
    Kill,
    Phase,
    Promote,
    Quiet,
    Recycle,
    Refuse,
    Reload,
    RunHook,
    Scale,
    Spawn,
    SpawnFailed,
    Start,
    Stop,
    StopNow,
    Stopped,
    TakeBack,
    Tick,
    WorkerExited,
    WorkerId,
    WorkerReady,
    WorkerStopping,
)
from sockmgr.fleet.pieces import Pieces
from sockmgr.fleet.restoring import LENIENCE, restore
from sockmgr.fleet.snapshot import Snapshot, decode
from sockmgr.worker.deadline import FINISH
from tests.fleet.story import tell_action, tell_fact
from tests.helpers.states import encode, record


class Life(StrEnum):
    """What a process of this world is up to."""

    BOOTING = "booting"
    SERVING = "serving"
    DRAINING = "draining"
    KILLED = "killed"


@dataclass
class Process:
    """One living worker as the world sees it."""

    id: WorkerId
    spec: Spec
    lease: int
    life: Life = Life.BOOTING
    rescue: bool = False
    recycled: bool = False
    hung: bool = False
    leaving: bool = False  # it drains, and nobody here told it to
    done: bool = False  # it ended, or is about to, when it had served: no fault
    told_at: float = 0.0
    finish_at: float = math.inf  # when it was told to end now
    ready_at: float = math.inf

    @property
    def active(self) -> bool:
        return self.life in (Life.BOOTING, Life.SERVING)

    @property
    def able(self) -> bool:
        """Whether it may be given new connections."""
        return self.life is Life.SERVING and not (self.rescue or self.hung)


@dataclass
class Unfed:
    """A lease that was fed and owes a Quiet: since when, and from when on it may be given up."""

    since: float
    patience: float


@dataclass
class World:
    """A fleet, what it commanded so far, and what happened."""

    fleet: Fleet = field(default_factory=Fleet)
    now: float = 100.0
    processes: dict[WorkerId, Process] = field(default_factory=dict)
    fed: dict[int, int] = field(default_factory=dict)
    unfed: dict[int, Unfed] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)
    asked: dict[int, Spec] = field(default_factory=dict)
    asked_before: dict[int, int] = field(default_factory=dict)  # request -> last generation then
    answers: dict[int, Committed | Aborted] = field(default_factory=dict)
    specs: dict[int, Spec] = field(default_factory=dict)
    feed_failed: bool = False
    stopped: bool = False
    idle: int = 0
    broken: bool = False  # a promise is, so nothing more can be learnt here
    hook: tuple[int, Moment] | None = None  # the one that runs ...
    hook_is_dying: bool = False  # ... and was told to end
    left: Process | None = None  # as it was, whose exit or own decision to go is what happens now
    canaries: dict[int, list[tuple[CanaryStep, float]]] = field(default_factory=dict)
    checked: set[tuple[int, int]] = field(default_factory=set)  # generation and step
    promoted: set[int] = field(default_factory=set)
    proven: set[int] = field(default_factory=set)
    condemned: dict[int, str] = field(default_factory=dict)
    cut_over_at: dict[int, float] = field(default_factory=dict)
    failed_at: dict[int, float] = field(default_factory=dict)
    failed_starts: Counter[int] = field(default_factory=Counter)
    unseen: Counter[int] = field(default_factory=Counter)
    successions: int = 0  # of managers; who had asked the one before hears no verdict
    newest: int = 0  # the number of the generation begun last
    committed: int = 0  # that of the one committed last
    pieces: Pieces = field(default_factory=Pieces)
    written: msgspec.Raw = field(default_factory=msgspec.Raw)  # for the next manager
    recycle_from: dict[int, float] = field(default_factory=dict)
    _told_at: float = 100.0

    # --- Facts -----------------------------------------------------------------------------------

    def start(self, spec: Spec, *left: int) -> list[Action]:
        return self.tell(Start(spec=spec, left=left))

    def reload(self, spec: Spec) -> list[Action]:
        return self.tell(Reload(spec=spec, request=max(self.asked, default=0) + 1))

    def ready(self, *workers: str | WorkerId) -> list[Action]:
        return self._each(WorkerReady(worker=self.id(worker)) for worker in workers)

    def exit(self, *workers: str | WorkerId, status: int = 0, took: bool = False) -> list[Action]:
        ids = map(self.id, workers)
        return self._each(WorkerExited(worker=w, status=status, took=took) for w in ids)

    def fail(self, worker: str | WorkerId, error: str = "no such file") -> list[Action]:
        return self.tell(SpawnFailed(worker=self.id(worker), error=error))

    def quiet(self, lease: int) -> list[Action]:
        return self.tell(Quiet(lease=lease))

    def scale(self, workers: int) -> list[Action]:
        return self.tell(Scale(workers=workers))

    def recycle(self, worker: str | WorkerId, why: str = "max_rss exceeded") -> list[Action]:
        return self.tell(Recycle(worker=self.id(worker), why=why))

    def wear_out(self, *workers: str | WorkerId, limit: Limit = Limit.RSS) -> list[Action]:
        why = f"{limit} reached"
        ids = map(self.id, workers)
        return self._each(Recycle(worker=worker, why=why, limit=limit) for worker in ids)

    def hang(self, worker: str | WorkerId) -> list[Action]:
        return self.tell(Hung(worker=self.id(worker), why="hung: silent for 60 s"))

    def promote(self, generation: int) -> list[Action]:
        return self.tell(Promote(generation=generation))

    def take_back(self, generation: int, why: str = "its workers are slow") -> list[Action]:
        return self.tell(TakeBack(generation=generation, why=why))

    def check(self, generation: int, step: int) -> list[Action]:
        return self.tell(CheckPassed(generation=generation, step=step))

    def fail_probes(self, *workers: str | WorkerId) -> list[Action]:
        why = "probe GET /up answered 500"
        return self._each(Health(worker=self.id(worker), why=why) for worker in workers)

    def pass_probe(self, worker: str | WorkerId) -> list[Action]:
        return self.tell(Health(worker=self.id(worker), why=""))

    def leave(self, worker: str | WorkerId, *, took: bool = False) -> list[Action]:
        return self.tell(WorkerStopping(worker=self.id(worker), took=took))

    def hook_ends(self, fault: str = "") -> list[Action]:
        assert self.hook is not None
        generation, moment = self.hook
        return self.tell(HookDone(generation=generation, moment=moment, fault=fault))

    def clients_wait(self) -> list[Action]:
        return self.tell(ClientsWait())

    def stop(self) -> list[Action]:
        return self.tell(Stop())

    def stop_now(self) -> list[Action]:
        return self.tell(StopNow())

    def succeed(self) -> list[Action]:
        """Let the manager die, and another go on from what it wrote; who asked has hung up."""
        self.story.append("> the manager dies, and another takes over")
        written = encode(
            Snapshot(
                boot_id="",
                config=Config(name="", listen=(), services=()),
                listeners=(),
                services=cast("Any", (self.written,)),
            )
        )
        (service,) = decode(written).services
        assert service == record("web", self.fleet, {}), "what has changed was not encoded again"
        self.fleet, self.pieces = restore(service, self.now), Pieces()
        self.successions, self.idle = self.successions + 1, 0
        self.unseen.clear()
        self.asked = {n: spec for n, spec in self.asked.items() if n in self.answers}
        # A stop is forgotten over this, so that what was fed is fed on.
        self.unfed = {n: unfed for n, unfed in self.unfed.items() if n not in self.fed}
        for unfed in self.unfed.values():
            unfed.since = self.now
        for process in self.processes.values():  # what is late has a little more time now
            if process.finish_at < math.inf:
                process.finish_at = max(process.finish_at, self.now + LENIENCE - FINISH)
        return self.tell(Tick())

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass, and tick then; deadlines in between are met late."""
        self.now += seconds
        return self.tell(Tick())

    def due(self) -> list[Action]:
        """Let time pass until the deadline, and tick there."""
        assert self.fleet.deadline < math.inf, "nothing is due, ever"
        self.now = max(self.now, self.fleet.deadline)
        return self.tell(Tick())

    def sleep(self, seconds: float) -> list[Action]:
        """Let time pass, with a tick at each deadline on the way; return all that was done."""
        until, done = self.now + seconds, []
        while self.fleet.deadline <= until:
            done += self.due()
        self.now = until
        return done

    def id(self, worker: str | WorkerId) -> WorkerId:
        if isinstance(worker, WorkerId):
            return worker
        generation, slot = worker.split(".")
        return WorkerId(int(generation), int(slot))

    def _each(self, facts: Iterable[Fact]) -> list[Action]:
        return [action for fact in facts for action in self.tell(fact)]

    def tell(self, fact: Fact) -> list[Action]:
        """Let `fact` happen, perform what the fleet answers, and check every promise."""
        from tests.fleet.promises import Moment  # noqa: PLC0415 - it reads worlds, we call it

        self._write(fact)
        self._happen(fact)
        moment = Moment.before(self, fact)
        actions = self.fleet.handle(fact, self.now)
        self.written = self.pieces.record("web", self.fleet, {}, ())
        for worker in self.fleet.workers():
            if worker.recycle and worker.id in self.processes:
                # By its age or health, which the world leaves out.
                self.processes[worker.id].recycled = True
                self.processes[worker.id].hung = worker.hung
        if isinstance(fact, Health):
            moment = Moment.before(self, fact)  # who takes nothing more is decided by the fleet
        self.story += [f"  {tell_action(action)}" for action in actions]
        self.story.append(self._wait())
        try:
            for action in actions:
                moment.check_action(action)
                self._perform(action)
            self.newest = max([self.newest, *self.fleet.generations])
            moment.check_after(actions)
        except AssertionError as broken:
            self.broken = True
            broken.add_note("\n".join(["the story so far:", *self.story]))
            raise
        return actions

    def _write(self, fact: Fact) -> None:
        passed = self.now - self._told_at
        self._told_at = self.now
        self.story.append(f"> {f'+{passed:.15g} ' if passed else ''}{tell_fact(fact)}")

    def _wait(self) -> str:
        deadline = self.fleet.deadline
        return f"  wait {deadline - self.now:.6g}" if deadline < math.inf else "  rest"

    def _leave(self, fact: WorkerExited | SpawnFailed) -> None:
        process = self.processes.pop(fact.worker, None)
        if process and isinstance(fact, WorkerExited):
            clean = fact.status in process.spec.clean_exits
            process.done = clean and self._has_served(process, took=fact.took)
        self._lose(process)

    def _go(self, process: Process, *, took: bool) -> None:
        if process.life is Life.SERVING:
            self._lose(replace(process, done=self._has_served(process, took=took)))
            process.life, process.told_at, process.leaving = Life.DRAINING, self.now, True

    def _has_served(self, process: Process, *, took: bool) -> bool:
        others = any(
            p.life is Life.SERVING and p.lease == process.lease and p is not process
            for p in self.processes.values()
        )
        enough = STEADY if isinstance(process.spec.ready, Delay) else SERVED
        number = process.id.generation
        known = process.ready_at <= self.now or not others or self.unseen[number] < UNSEEN
        return (took and known) or self.now - process.ready_at >= enough

    def _lose(self, process: Process | None) -> None:
        self.left = process
        if process is None or not process.active:
            return
        generation = process.id.generation
        if process.done:
            self.failed_at.pop(generation, None)
            self.unseen[generation] += process.life is Life.BOOTING
            return
        self.failed_starts[generation] += process.life is Life.BOOTING
        if self.now - process.ready_at < STEADY:
            self.failed_at[generation] = self.now

    def _happen(self, fact: Fact) -> None:  # noqa: C901, PLR0912 - one case a fact
        self.left = None
        match fact:
            case WorkerReady():
                process = self.processes.get(fact.worker)
                if process and process.life is Life.BOOTING:
                    process.life, process.ready_at = Life.SERVING, self.now
                    self.unseen[process.id.generation] = 0
                    if process.lease in self.unfed:
                        self.unfed[process.lease].since = self.now
            case WorkerExited() | SpawnFailed():
                self._leave(fact)
            case WorkerStopping():
                self._go(self.processes[fact.worker], took=fact.took)
            case HookDone():
                self.hook, self.hook_is_dying = None, False
            case Quiet():
                self.unfed.pop(fact.lease, None)
            case FeedFailed():
                self.feed_failed = True
            case Promote():
                self.promoted.add(fact.generation)
            case TakeBack():
                self.condemned[fact.generation] = fact.why
            case CheckPassed():
                self.checked.add((fact.generation, fact.step))
            case Start():
                self.committed = 1
                for lease in fact.left[1:]:
                    self.unfed[lease] = Unfed(self.now, fact.spec.drain_timeout)
            case Recycle(limit=None) | Hung() if fact.worker in self.processes:
                self.processes[fact.worker].recycled = True
                self.processes[fact.worker].hung |= isinstance(fact, Hung)
            case Reload():
                self.asked[fact.request] = fact.spec
                self.asked_before[fact.request] = self.newest
            case _:
                pass

    # --- Actions ---------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:  # noqa: C901, PLR0912 - one case an action
        match action:
            case Spawn():
                generation = self.fleet.generations[action.worker.generation]
                self.processes[action.worker] = Process(
                    action.worker, action.spec, action.lease, told_at=self.now,
                    rescue=generation.workers[action.worker.slot].rescue,
                )  # fmt: skip
                self.specs[action.worker.generation] = action.spec
                if unfed := self.unfed.get(action.lease):
                    unfed.patience = min(unfed.patience, action.spec.drain_timeout)
            case RunHook():
                assert self.hook is None, "two hooks run at once"
                self.hook = action.generation, action.moment
            case EndHook():
                assert self.hook == (action.generation, action.moment)
                self.hook_is_dying = True
            case Feed():
                self._feed(action)
            case Refuse():
                self._wait_for_quiet(self.fed)
            case CanaryStep():
                self.canaries.setdefault(action.generation, []).append((action, self.now))
            case CanaryPassed():
                self.proven.add(action.generation)
            case CutOver():
                self.cut_over_at[action.generation] = self.now
            case Drain():
                self._end(action.worker, Life.DRAINING)
            case Finish():
                self.processes[action.worker].finish_at = self.now
            case Kill():
                self._end(action.worker, Life.KILLED)
            case Committed() | Aborted():
                self.answers |= dict.fromkeys(action.requests, action)
                self.newest = max(self.newest, action.generation)
                if isinstance(action, Committed):
                    self._replace(action.generation)
            case Stopped():
                self.stopped = True
            case _:
                pass

    def _replace(self, number: int) -> None:
        """Owe a Quiet for what may wait at the listeners that the generation before had alone."""
        old, new = self.specs.get(self.committed), self.specs.get(number)
        if old and new and old.removed(new):
            for p in self.processes.values():
                takes = p.life is Life.SERVING and not p.hung and p.lease not in self.fed
                if takes and p.id.generation == self.committed:
                    self.unfed[p.lease] = Unfed(self.now, old.drain_timeout)
        self.committed = number

    def _end(self, worker: WorkerId, life: Life) -> None:
        self.processes[worker].life = life
        self.processes[worker].told_at = self.now

    def _feed(self, action: Feed) -> None:
        after, self.feed_failed = dict(action.leases), False
        self._wait_for_quiet(self.fed.keys() - after.keys())
        for lease in after:
            self.unfed.pop(lease, None)
        self.fed = after

    def _wait_for_quiet(self, leases: Iterable[int]) -> None:
        for lease in leases:
            users = [p.spec.drain_timeout for p in self.processes.values() if p.lease == lease]
            self.unfed[lease] = Unfed(self.now, min(users, default=0.0))

    # --- What there is ---------------------------------------------------------------------------

    def having(self, *lives: Life) -> list[WorkerId]:
        """The processes with one of these lives."""
        return sorted(p.id for p in self.processes.values() if p.life in lives)

    def serving(self) -> list[Process]:
        """Those that take new connections now."""
        return [
            p
            for p in self.processes.values()
            if p.life is Life.SERVING and self.fed.get(p.lease) and not p.hung
        ]

    def at_rest(self) -> bool:
        """Whether the current generation, whole and alone, is all there is."""
        fleet, current = self.fleet, self.fleet.current
        if current is None:
            return not self.processes and fleet.trial is None
        return (
            fleet.trial is None
            and fleet.pending is None
            and not (self.hook or self.unfed)
            and list(fleet.generations) == [current.number]
            and len(self.processes) == current.wanted
            and all(p.life is Life.SERVING and not p.recycled for p in self.processes.values())
            and self.fed.keys() == ({p.lease for p in self.processes.values()} or self.fed.keys())
            and set(self.fed.values()) == {1}
        )

    # --- Whole worlds ----------------------------------------------------------------------------

    def be_kind(self) -> None:
        """Let everything go well until nothing is left to do."""
        for _ in range(400):
            self._go_well()
            if self.stopped or self.at_rest():
                return
            self.due()
        raise self._stuck("it never comes to rest, though all goes well")

    def _go_well(self) -> None:
        doing = True
        while doing:
            doing = self._prove() or self.hook is not None
            if self.hook:
                self.hook_ends("was killed" if self.hook_is_dying else "")
            for worker in self.having(Life.BOOTING, Life.DRAINING, Life.KILLED):
                process = self.processes.get(worker)
                if process and process.life is Life.BOOTING:
                    self.ready(worker)
                elif process:
                    self.exit(worker, status=-9 if process.life is Life.KILLED else 0)
                doing = True
            for lease in sorted(self.unfed):
                # A queue that nobody works off does not become empty.
                if any(
                    p.life is Life.SERVING and p.lease == lease for p in self.processes.values()
                ):
                    self.quiet(lease)
                    doing = True

    def _prove(self) -> bool:
        """Have the check of a canary pass, and promote one that is held; tell if any was."""
        trial = self.fleet.trial
        if trial is None or trial.phase is not Phase.CANARY or not trial.canary:
            return False
        if trial.canary.check and not trial.checked:
            self.check(trial.number, trial.step)
        elif trial.deadline == math.inf:
            self.promote(trial.number)
        else:
            return False
        return True

    def be_hostile(self) -> None:
        """Let nothing get ready and nothing end but by KILL, until every rollout has ended."""
        for _ in range(400):
            if self.fleet.trial is None and self.fleet.pending is None:
                return
            killed, trial = self.having(Life.KILLED), self.fleet.trial
            if self.hook_is_dying:
                self.hook_ends("was killed")
            elif killed:
                self.exit(*killed, status=-9)
            elif trial and trial.phase is Phase.CANARY and trial.deadline == math.inf:
                self.take_back(trial.number)
            else:
                self.due()
        raise self._stuck("a rollout does not end in a hostile world")

    def _stuck(self, why: str) -> AssertionError:
        stuck = AssertionError(why)
        stuck.add_note("\n".join(["the story so far:", *self.story[-200:]]))
        return stuck
