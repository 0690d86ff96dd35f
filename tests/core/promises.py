"""The promises of DESIGN.md that can be checked at one step of a world.

A Moment is made when a fact has happened but the fleet has not heard of it. It then sees each
action just before it is performed, and the world when all are. It judges from what the world saw,
not from what the fleet thinks, wherever the world can know.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sockmgr.core.fleet import KILL_AGAIN, SPAWN_BATCH
from sockmgr.core.generation import BACKOFF_MAX, Generation
from sockmgr.core.model import (
    Aborted,
    Action,
    Committed,
    Drain,
    Fact,
    Feed,
    Kill,
    Phase,
    Reload,
    Scale,
    Spawn,
    State,
    Stop,
    StopNow,
    Stopped,
    Tick,
    WorkerId,
)
from sockmgr.core.targets import RESCUE_DELAY

if TYPE_CHECKING:
    from tests.core.world import World

IDLE_TICKS = 2  # as many soft deadlines may pass in a row without anything to do
LIVES = {"booting": State.STARTING, "serving": State.READY, "draining": State.DRAINING,
         "killed": State.KILLED}  # fmt: skip


@dataclass
class Moment:
    """One fact, and all that the fleet answers to it."""

    world: World
    fact: Fact
    due: bool
    current: int
    current_wanted: int
    trial: int
    fed: dict[int, int]
    serving: set[WorkerId]  # took new connections, and still would
    late_helpers: set[WorkerId]
    generations: set[int]
    leases: set[int]
    current_ready: int
    exclusive: bool
    stopping: bool
    before_print: tuple[object, ...]
    spawned: int = 0

    @classmethod
    def before(cls, world: World, fact: Fact) -> Moment:
        fleet = world.fleet
        current, trial = fleet.current, fleet.trial
        retired = {n: g.deadline for n, g in fleet.generations.items() if g.phase is Phase.RETIRING}
        serving = {p.id for p in world.serving()}
        return cls(
            world=world,
            fact=fact,
            due=world.now >= fleet.deadline,
            current=current.number if current else 0,
            current_wanted=current.wanted if current else 0,
            trial=trial.number if trial else 0,
            fed=dict(world.fed),
            serving=serving,
            late_helpers={w for w in serving if retired.get(w.generation, math.inf) <= world.now},
            generations=set(fleet.generations),
            leases={p.lease for p in world.processes.values()}
            | {g.lease for g in fleet.generations.values()}
            | set(world.unfed)
            | set(world.fed),
            current_ready=_ready(world, current) if current else 0,
            exclusive=_exclusive(world),
            stopping=fleet.stopping,
            before_print=_print(world),
        )

    # --- One action ------------------------------------------------------------------------------

    def check_action(self, action: Action) -> None:
        match action:
            case Spawn():
                self._check_spawn(action)
            case Feed():
                self._check_feed(action)
            case Drain():
                self._check_drain(action)
            case Kill():
                self._check_kill(action)
            case Committed() | Aborted():
                self._check_verdict(action)
            case Stopped():
                assert not self.world.stopped, "stopped twice"
                assert not self.world.processes, "stopped with workers left"
            case _:
                pass

    def _check_spawn(self, action: Spawn) -> None:
        world, fleet = self.world, self.world.fleet
        assert not fleet.stopping, "no worker is started after stop"
        assert action.worker not in world.processes, f"{action.worker} is alive already"
        generation = fleet.generations.get(action.worker.generation)
        assert generation is not None
        assert generation.phase is not Phase.RETIRING, (
            "P4: only the current generation and the one on trial get workers"
        )
        assert action.spec == generation.spec
        self.spawned += 1
        assert self.spawned <= SPAWN_BATCH, "more spawns in one go than the loop can bear"
        failed_at = world.failed_at.get(generation.number, -math.inf)
        assert world.now >= failed_at + 0.1, "a worker that failed is replaced without a pause"
        mine = [p for p in world.processes.values() if p.id.generation == generation.number]
        booting = sum(p.life == "booting" for p in mine)
        limit = action.spec.rollout.start_concurrency
        assert booting < limit, f"start_concurrency: {booting} boot, {limit} may"
        others_serve = any(p.life == "serving" for p in world.processes.values())
        assert action.background == others_serve, "background: when others serve, and only then"
        if action.lease == generation.lease:
            members = sum(p.active and p.lease == action.lease and not p.recycled for p in mine)
            assert members < generation.wanted, (
                f"P4: generation {generation.number} has the {members} workers it wants"
            )
        else:
            assert generation is fleet.current, "only the current generation rescues"
            assert action.lease in world.unfed, "a rescue needs a queue that is not empty"
            assert not any(p.active and p.lease == action.lease for p in world.processes.values())
        if action.spec.rollout.exclusive:
            assert len(world.processes) == len(mine), "exclusive: nothing else may run"
            assert len(mine) < max(generation.wanted, 1), "exclusive: no more than wanted at once"
        if fleet.current and generation is fleet.trial and generation.phase is Phase.BOOTING:
            self._check_surge(generation)

    def _check_surge(self, trial: Generation) -> None:
        current = self.world.fleet.current
        assert current is not None
        count = sum(
            p.active and not p.recycled and p.lease == self.world.fleet.generations[n].lease
            for p in self.world.processes.values()
            if (n := p.id.generation) in (current.number, trial.number)
        )
        surge = trial.spec.rollout.surge.above(trial.wanted)
        allowed = max(current.wanted, trial.wanted) + surge
        assert count < allowed or trial.instant, f"surge: {count} run, {allowed} may"

    def _check_feed(self, action: Feed) -> None:
        leases = [lease for lease, _ in action.leases]
        assert leases, "something is always fed"
        assert len(set(leases)) == len(leases)
        assert all(weight > 0 for _, weight in action.leases), "weights are positive"
        assert action.leases != tuple(self.world.fed.items()), "a Feed changes something"
        fleet = self.world.fleet
        trusted = fleet.current
        if trusted and _ready(self.world, trusted) and trusted.lease in leases:
            assert leases[0] == trusted.lease, "the first fed lease, the fallback, is committed"

    def _check_drain(self, action: Drain) -> None:
        world, fleet = self.world, self.world.fleet
        process = world.processes[action.worker]
        assert process.active, f"{action.worker} was told already"
        assert action.why
        if fleet.stopping:
            return
        unfed = world.unfed.get(process.lease)
        assert unfed is None or world.now >= unfed.since + unfed.patience, (
            f"{action.worker} is told to stop before its queue, lease {process.lease}, is quiet"
        )
        wanted = fleet.current.wanted if fleet.current else 0
        if process.life == "serving" and process.lease in world.fed and wanted and self.current:
            others = [p for p in world.serving() if p.lease == process.lease]
            assert len(others) > 1 or self.exclusive or _exclusive(world), (
                f"P2: lease {process.lease} is fed, and {action.worker} is all it has"
            )

    def _check_kill(self, action: Kill) -> None:
        process = self.world.processes[action.worker]
        assert action.why
        if process.life == "killed":
            assert self.world.now >= process.told_at + KILL_AGAIN, "killed again too soon"
        if process.life == "serving" and not isinstance(self.fact, StopNow):
            others = [p for p in self.world.serving() if p is not process]
            current = self.world.fleet.current
            excused = current is None or not current.wanted or self.exclusive
            assert others or excused or _exclusive(self.world), (
                f"P2: {action.worker} is killed, and nobody else serves"
            )

    def _check_verdict(self, verdict: Committed | Aborted) -> None:
        world, fleet = self.world, self.world.fleet
        assert verdict.requests, "P6: a verdict is somebody's"
        for request in verdict.requests:
            assert request in world.asked, f"P6: nobody asked #{request}"
            assert request not in world.answers, f"P6: #{request} is answered twice"
        if world.stopped:
            asked_now = isinstance(self.fact, Reload) and (self.fact.request,)
            assert verdict.requests == asked_now, "P6: no verdict after Stopped"
        if verdict.generation:
            spec = fleet.generations.get(verdict.generation)
            newest = world.asked[max(verdict.requests)]
            assert spec is None or spec.spec == newest, "P6: the verdict is about another spec"
            assert all(verdict.generation > world.asked_before[r] for r in verdict.requests), (
                "P6: that generation was begun before it was asked for"
            )
        if isinstance(verdict, Aborted):
            self._check_abort(verdict)
        else:
            self._check_commit(verdict)

    def _check_commit(self, verdict: Committed) -> None:
        world = self.world
        assert not world.fleet.stopping, "P6: stop beats reload"
        probation = world.asked[max(verdict.requests)].rollout.probation
        current = world.fleet.current
        nothing = current is not None and not current.wanted
        assert nothing or world.now >= world.cut_over_at[verdict.generation] + probation, (
            f"generation {verdict.generation} is committed before its probation is over"
        )

    def _check_abort(self, verdict: Aborted) -> None:
        assert verdict.reason, "P7: an abort has a reason"
        assert verdict.kept == self.current, "P7: the current generation stays what it was"
        if verdict.worker:
            assert verdict.worker.generation == verdict.generation
        if self.stopping or isinstance(self.fact, Stop | StopNow):
            assert "stopping" in verdict.reason
        else:
            assert verdict.generation
            assert "worker" in verdict.reason, "P7: the reason names what happened"
            named = verdict.worker is None or str(verdict.worker) in verdict.reason
            assert named or "in time" in verdict.reason, "P7: the reason names the worker"

    # --- The world afterwards --------------------------------------------------------------------

    def check_after(self, actions: list[Action]) -> None:
        self._check_views_agree()
        self._check_one_rollout(actions)
        self._check_given_up(actions)
        self._check_deadline(actions)
        self._check_begun()
        if self.world.fleet.stopping:
            answered = self.world.answers.keys() == self.world.asked.keys()
            assert answered, "P6: after stop every request is answered"
        elif self.world.fleet.current:
            self._check_somebody_serves()
            self._check_filled()
            self._check_max_draining()
            self._check_rescued()

    def _check_views_agree(self) -> None:
        world = self.world
        ours = {p.id: LIVES[p.life] for p in world.processes.values()}
        assert ours == {w.id: w.state for w in world.fleet.workers()}
        assert tuple(world.fed.items()) == world.fleet.fed
        for generation in world.fleet.generations.values():
            assert generation.workers or generation.phase is not Phase.RETIRING, "gone, yet listed"

    def _check_one_rollout(self, actions: list[Action]) -> None:
        fleet = self.world.fleet
        tried = [
            g for g in fleet.generations.values() if g.phase in (Phase.BOOTING, Phase.PROBATION)
        ]
        assert tried == ([fleet.trial] if fleet.trial else []), "P6: one rollout at a time"
        if fleet.pending:
            assert fleet.trial or fleet.current is None, "P6: a reload waits for nothing"
        waiting = self.world.asked.keys() - self.world.answers.keys()
        known = set(fleet.pending_requests) | set(fleet.trial.requests if fleet.trial else ())
        assert waiting == known, "P6: a request is forgotten, or answered and kept"
        committed = any(isinstance(a, Committed) for a in actions)
        if self.current and not committed:
            assert fleet.current is not None
            assert fleet.current.number == self.current, "P7: only a commit changes what is current"
            if isinstance(self.fact, Scale):
                assert all(g.wanted == self.fact.workers for g in (fleet.current, *tried))
            else:
                assert fleet.current.wanted == self.current_wanted

    def _check_given_up(self, actions: list[Action]) -> None:
        left = self.world.left
        if left is None or not left.active or left.id.generation != self.trial:
            return
        rollout = left.spec.rollout
        status = getattr(self.fact, "status", None)
        hopeless = (
            left.life == "serving"
            or status in left.spec.broken_exits
            or self.world.failed_starts[self.trial] >= rollout.max_failed_starts
        )
        told = [a for a in actions if isinstance(a, Aborted) and a.generation == self.trial]
        assert told or not hopeless, f"P7: generation {self.trial} is not aborted"

    def _check_deadline(self, actions: list[Action]) -> None:
        world, deadline = self.world, self.world.fleet.deadline
        waits = any(p.life != "serving" for p in world.processes.values())
        if not world.fleet.stopping:
            waits = waits or bool(world.fleet.trial or world.fleet.unquiet)
        if waits:
            assert deadline < math.inf, "P5: somebody waits, and nothing is due"
        spawned = [a for a in actions if isinstance(a, Spawn)]
        if deadline <= world.now:
            assert len(spawned) == SPAWN_BATCH, "P5: due at once without need: a busy loop"
        ticked = isinstance(self.fact, Tick) and self.due
        changed = actions or _print(world) != self.before_print
        world.idle = world.idle + 1 if ticked and not changed else 0
        assert world.idle <= IDLE_TICKS, "P11: it wakes up again and again for nothing"

    def _check_begun(self) -> None:
        fleet = self.world.fleet
        begun = set(fleet.generations) - self.generations
        for generation in (fleet.generations[n] for n in sorted(begun)):
            if generation.lease in self.leases and self.current:
                left = fleet.generations.get(self.current)
                able = self.current_ready and left and _ready(self.world, left)
                inherits = generation.spec.rollout.exclusive or not able
                assert inherits, f"lease {generation.lease} is shared by two generations"

    def _check_somebody_serves(self) -> None:
        world, fleet = self.world, self.world.fleet
        assert fleet.current is not None
        wanted = min(g.wanted for g in (fleet.current, fleet.trial) if g)
        if self.exclusive or _exclusive(world) or not wanted:
            return
        serving = len(world.serving())
        able = [
            p.id
            for p in world.processes.values()
            if p.life == "serving" and p.lease == fleet.generations[p.id.generation].lease
        ]
        assert serving or not able, f"P2: nobody serves, though {able} could"
        before = len(self.serving - self.late_helpers)
        assert serving >= min(before, wanted), (
            f"P2: {before} served, {wanted} are wanted, {serving} are left by our own decision"
        )

    def _check_filled(self) -> None:
        fleet = self.world.fleet
        current, trial = fleet.current, fleet.trial
        assert current is not None
        if _exclusive(self.world) or fleet.deadline <= self.world.now:
            return
        helped = 0
        if trial and not trial.instant:
            if trial.phase is Phase.PROBATION:
                return
            helped = _ready(self.world, trial)
        self._check_full(current, helped)
        if trial and trial.instant:
            self._check_full(trial, 0)

    def _check_full(self, generation: Generation, helped: int) -> None:
        mine = [p for p in self.world.processes.values() if p.id.generation == generation.number]
        members = sum(p.active and p.lease == generation.lease and not p.recycled for p in mine)
        booting = sum(p.life == "booting" for p in mine)
        assert generation.not_before <= self.world.now + BACKOFF_MAX
        excused = (
            self.world.now < generation.not_before
            or booting >= generation.spec.rollout.start_concurrency
        )
        assert members + helped >= generation.wanted or excused, (
            f"P4: generation {generation.number} is not filled"
        )

    def _check_rescued(self) -> None:
        world, current = self.world, self.world.fleet.current
        assert current is not None
        booting = sum(
            p.life == "booting" and p.id.generation == current.number
            for p in world.processes.values()
        )
        excused = (
            _exclusive(world)
            or current.spec.rollout.exclusive
            or not _ready(world, current)
            or world.now < current.not_before
            or booting >= current.spec.rollout.start_concurrency
            or world.fleet.deadline <= world.now
        )
        users = _users(world)
        for lease, unfed in list(world.unfed.items()):
            waited = world.now >= unfed.since + RESCUE_DELAY
            assert excused or not waited or users[lease] or lease not in world.fleet.unquiet, (
                f"connections wait in lease {lease}, and nobody is sent to take them"
            )
            # Given up: it had its time, with somebody there to empty it.
            had = any(p.lease == lease for p in world.processes.values())
            known = lease in world.fleet.unquiet or (
                had and world.now >= unfed.since + unfed.patience
            )
            assert known or excused, f"the connections in lease {lease} are forgotten"
            if lease not in world.fleet.unquiet:
                del world.unfed[lease]

    def _check_max_draining(self) -> None:
        fleet = self.world.fleet
        assert fleet.current is not None
        draining = {
            p.id.generation
            for p in self.world.processes.values()
            if p.life == "draining" and fleet.generations[p.id.generation].phase is Phase.RETIRING
        }
        allowed = fleet.current.spec.rollout.max_draining
        helping = {p.id.generation for p in self.world.processes.values() if p.life == "serving"}
        assert len(draining - helping) <= allowed, f"max_draining: {len(draining)} > {allowed}"


def _ready(world: World, generation: Generation) -> int:
    return sum(
        p.life == "serving" and p.id.generation == generation.number and p.lease == generation.lease
        for p in world.processes.values()
    )


def _users(world: World) -> Counter[int]:
    return Counter(p.lease for p in world.processes.values() if p.active)


def _exclusive(world: World) -> bool:
    return any(g and g.spec.rollout.exclusive for g in (world.fleet.current, world.fleet.trial))


def _print(world: World) -> tuple[object, ...]:
    fleet = world.fleet
    return (
        tuple((w.id, w.state, w.deadline, w.recycle) for w in fleet.workers()),
        tuple((n, g.phase) for n, g in fleet.generations.items()),
        fleet.fed,
        tuple(fleet.unquiet.items()),
    )
