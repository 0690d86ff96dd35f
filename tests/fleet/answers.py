"""The promises that can be checked at one action, just before it is performed.

An Answer is made when a fact has happened but the fleet has not heard of it. It judges from what
the world saw, not from what the fleet thinks, wherever the world can know.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sockmgr.config import hooks
from sockmgr.fleet.canary import NEWER
from sockmgr.fleet.fleet import SPAWN_BATCH
from sockmgr.fleet.generation import Generation
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    CanaryPassed,
    CanaryStep,
    Committed,
    CutOver,
    Drain,
    Fact,
    Feed,
    Finish,
    Kill,
    Phase,
    Recycled,
    Reload,
    Spawn,
    Stop,
    StopNow,
    Stopped,
    WorkerId,
)
from sockmgr.fleet.recycling import EARLY
from sockmgr.fleet.turnover import KILL_AGAIN, TOO_MANY

if TYPE_CHECKING:
    from tests.fleet.world import World


@dataclass
class Answer:
    """One fact, and the actions by which the fleet answers it."""

    world: World
    fact: Fact
    due: bool
    current: int
    current_wanted: int
    trial: int
    fed: dict[int, int]
    serving: set[WorkerId]  # took new connections, and still would
    stopgaps: set[WorkerId]  # served for want of better: late helpers, and the unproven
    generations: set[int]
    unfed: dict[int, float]  # lease -> when its Quiet may be given up
    exclusive: bool
    stopping: bool
    pending: bool
    before_print: tuple[object, ...]
    spawned: int = 0

    @classmethod
    def before(cls, world: World, fact: Fact) -> Self:
        fleet = world.fleet
        current, trial = fleet.current, fleet.trial
        retired = {n: g.deadline for n, g in fleet.generations.items() if g.phase is Phase.RETIRING}
        if trial and (trial.share or (trial.phase is Phase.BOOTING and trial.instant)):
            retired[trial.number] = world.now
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
            stopgaps={w for w in serving if retired.get(w.generation, math.inf) <= world.now},
            generations=set(fleet.generations),
            unfed={lease: u.since + u.patience for lease, u in world.unfed.items()},
            exclusive=is_exclusive(world),
            stopping=fleet.stopping,
            pending=fleet.pending is not None,
            before_print=fingerprint(world),
        )

    # --- One action ------------------------------------------------------------------------------

    def check_action(self, action: Action) -> None:  # noqa: C901, PLR0912 - one case an action
        match action:
            case Spawn():
                self._check_spawn(action)
            case CutOver():
                trial = self.world.fleet.generations[action.generation]
                assert not trial.owes(hooks.Moment.READY), "cut over before the hook allows it"
            case Feed():
                self._check_feed(action)
            case Drain():
                self._check_drain(action)
            case Finish():
                process = self.world.processes[action.worker]
                assert process.life == "draining", "only who drains can be told to end now"
                assert process.finish_at == math.inf, f"{action.worker} was told to end now before"
            case Kill():
                self._check_kill(action)
            case CanaryStep():
                self._check_step(action)
            case CanaryPassed():
                self._check_passed(action.generation)
            case CutOver():
                self._check_proven(action.generation)
            case Committed() | Aborted():
                self._check_verdict(action)
            case Recycled():
                self._check_recycled(action)
            case Stopped():
                assert not self.world.stopped, "stopped twice"
                assert not self.world.processes, "stopped with workers left"
                assert not self.world.hook, "stopped with a hook left"
            case _:
                pass

    def _check_recycled(self, action: Recycled) -> None:
        """One slot at a time, in no rollout, and ever slower where it does not help."""
        world, fleet = self.world, self.world.fleet
        rolls = fleet.trial or fleet.pending or fleet.stopping
        assert not rolls, "recycled in a rollout"
        assert fleet.current
        mine = [p for p in world.processes.values() if p.id.generation == fleet.current.number]
        assert [p.life for p in mine] == ["serving"] * fleet.current.wanted, "a slot is not served"
        others = [str(p.id) for p in mine if p.recycled and p.id != action.worker]
        assert not others, f"{action.worker} is recycled beside {others}"
        number = fleet.current.number
        pause = world.recycle_from.get(number, -math.inf)
        assert world.now >= pause, "recycled before the pause is over"
        world.recycle_from[number] = world.now + action.pause
        # Not by what the fleet says: who is worn as soon as it is ready is no reason to hurry.
        soon = world.now - world.processes[action.worker].ready_at < EARLY
        assert action.pause or not soon or action.limit is Limit.AGE, "it would go on for ever"

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
        assert not generation.owes(hooks.Moment.BEFORE), "a worker starts before its hook has ended"
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
        if generation.workers[action.worker.slot].rescue:
            assert generation is fleet.current, "only the current generation rescues"
            assert action.lease in world.unfed, "a rescue needs a queue that is not empty"
            assert not users_of(world)[action.lease], "somebody takes what waits there"
        else:
            members = sum(p.active and not (p.rescue or p.recycled) for p in mine)
            assert members < generation.wanted, (
                f"P4: generation {generation.number} has the {members} workers it wants"
            )
            self._check_lease(generation, action.lease)
        if action.spec.rollout.exclusive:
            assert len(world.processes) == len(mine), "exclusive: nothing else may run"
            assert len(mine) < max(generation.wanted, 1), "exclusive: no more than wanted at once"
        if fleet.current and generation is fleet.trial and generation.phase is Phase.BOOTING:
            self._check_surge(generation)

    def _check_lease(self, generation: Generation, lease: int) -> None:
        world, fleet = self.world, self.world.fleet
        if generation.lease is not None:
            assert lease == generation.lease, "the workers of a generation share one queue"
            return
        alive = (p for p in world.processes.values() if p.life != "killed")
        living = {p.lease for p in alive if not p.leaving}
        assert lease not in living, f"lease {lease} is taken from one who may still accept"
        shared = {g.lease for g in fleet.generations.values() if g.lease is not None}
        assert lease not in shared or is_exclusive(world), f"all of a generation share {lease}"
        left = {*world.fed, *world.unfed.keys() & fleet.unquiet.keys()} - living
        alone = fleet.current is None or not ready_of(world, fleet.current)
        # A canary stands in for nobody, and one that has passed serves from its cut-over on.
        rolls = not (generation.instant or generation.canary)
        serves = generation.phase is Phase.PROBATION or rolls
        # What has not all listeners of the current generation cannot answer all who wait.
        fits = fleet.current is None or not fleet.current.spec.removed(generation.spec)
        inherits = fits and (generation is fleet.current or serves or alone)
        if lease in left:
            assert inherits, f"what waits in lease {lease} is given to the unproven"
            return
        assert not inherits or left <= shared, f"{left} are left by the dead, and {lease} is taken"
        assert lease not in generation.spec.foreign, f"lease {lease} is another service's"
        held = {p.lease for p in world.processes.values()} | {*world.unfed} | {*world.fed} | shared
        held |= generation.spec.foreign
        assert lease <= len(held - {lease}), f"lease {lease}, though only {held} are in use"

    def _check_surge(self, trial: Generation) -> None:
        current = self.world.fleet.current
        assert current is not None
        count = sum(
            p.active and not (p.recycled or p.rescue)
            for p in self.world.processes.values()
            if p.id.generation in (current.number, trial.number)
        )
        surge = trial.spec.rollout.surge.above(trial.wanted)
        allowed = max(current.wanted, trial.wanted) + surge
        assert count < allowed or trial.instant, f"surge: {count} run, {allowed} may"

    def _check_feed(self, action: Feed) -> None:
        leases = [lease for lease, _ in action.leases]
        fleet = self.world.fleet
        assert leases or not (fleet.current or fleet.trial), "something is always fed"
        assert len(set(leases)) == len(leases)
        weights = [weight for _, weight in action.leases]
        assert weights == [] or weights[0] > 0 <= min(weights), "only what is beside has no weight"
        same = action.leases == tuple(self.world.fed.items())
        assert self.world.feed_failed or not same, "a Feed changes something"
        trusted = fleet.current
        if trusted and ready_of(self.world, trusted):
            own = self._leases_of(trusted) & {lease for lease, weight in action.leases if weight}
            assert not own or leases[0] in own, "the first fed lease, the fallback, is committed"

    def _leases_of(self, generation: Generation) -> set[int]:
        if generation.lease is not None:
            return {generation.lease}
        mine = [p for p in self.world.processes.values() if p.id.generation == generation.number]
        return {p.lease for p in mine if p.able}

    def _check_drain(self, action: Drain) -> None:
        world, fleet = self.world, self.world.fleet
        process = world.processes[action.worker]
        assert process.active, f"{action.worker} was told already"
        assert action.why
        if fleet.stopping or action.why == TOO_MANY:
            return
        unfed = world.unfed.get(process.lease)
        assert unfed is None or world.now >= unfed.since + unfed.patience, (
            f"{action.worker} is told to stop before its queue, lease {process.lease}, is quiet"
        )
        wanted = fleet.current.wanted if fleet.current else 0
        serves = process.life == "serving" and not process.hung and process.lease in world.fed
        if serves and wanted and self.current:
            others = [p for p in world.serving() if p.lease == process.lease and p is not process]
            assert others or self.exclusive or is_exclusive(world), (
                f"P2: lease {process.lease} is fed, and {action.worker} is all it has"
            )

    def _check_step(self, action: CanaryStep) -> None:
        canary = self.world.fleet.generations[action.generation].spec.rollout.canary
        taken = self.world.canaries.get(action.generation, [])
        assert canary
        assert action.step == len(taken), "a canary takes its steps in order, each once"
        assert action.share == canary.shares[action.step]
        if taken:
            self._check_step_is_over(action.generation)

    def _check_step_is_over(self, generation: int) -> None:
        """The step before has lasted, and its check has passed."""
        world = self.world
        canary = world.specs[generation].rollout.canary
        last, since = world.canaries[generation][-1]
        assert canary
        assert world.now >= since + canary.seconds, "a step of a canary ends too soon"
        assert not canary.check or (generation, last.step) in world.checked, "it is not checked"
        held = canary.hold and last.step == last.steps - 1
        assert not held, f"nobody has promoted generation {generation}"

    def _check_passed(self, generation: int) -> None:
        steps = self.world.canaries[generation]
        trial = self.world.fleet.trial
        if generation in self.world.promoted or not (trial and trial.wanted):
            return
        assert len(steps) == steps[0][0].steps, "it has not taken all steps"
        self._check_step_is_over(generation)

    def _check_proven(self, generation: int) -> None:
        """Who has taken a step of its canary is cut over when it has passed, and not before."""
        world = self.world
        unproven = generation in world.canaries and generation not in world.proven
        assert not unproven, f"generation {generation} is cut over before it has proven itself"

    def _check_kill(self, action: Kill) -> None:
        process = self.world.processes[action.worker]
        assert action.why
        if process.life == "killed":
            assert self.world.now >= process.told_at + KILL_AGAIN, "killed again too soon"
        serves = process.life == "serving" and not process.hung
        if serves and not isinstance(self.fact, StopNow):
            others = [p for p in self.world.serving() if p is not process]
            current = self.world.fleet.current
            excused = current is None or not current.wanted or self.exclusive
            assert others or excused or is_exclusive(self.world), (
                f"P2: {action.worker} is killed, and nobody else serves"
            )

    def _check_verdict(self, verdict: Committed | Aborted) -> None:
        world, fleet = self.world, self.world.fleet
        assert verdict.requests or world.successions, "P6: a verdict is somebody's"
        for request in verdict.requests:
            assert request in world.asked, f"P6: nobody asked #{request}"
            assert request not in world.answers, f"P6: #{request} is answered twice"
        if world.stopped and verdict.requests:
            asked_now = isinstance(self.fact, Reload) and (self.fact.request,)
            assert verdict.requests == asked_now, "P6: no verdict after Stopped"
        if verdict.generation and verdict.requests:
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
        if not verdict.requests and verdict.generation not in world.specs:
            return  # it never had a worker, and who asked for it has hung up
        asked = verdict.requests and world.asked[max(verdict.requests)]
        probation = (asked or world.specs[verdict.generation]).rollout.probation
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
        elif verdict.reason != self.world.condemned.get(verdict.generation):
            self._check_reason(verdict)

    def _check_reason(self, verdict: Aborted) -> None:
        world, reason = self.world, verdict.reason
        assert verdict.generation
        if reason == NEWER:
            assert verdict.generation in world.canaries, "only a canary makes way for another"
            assert isinstance(self.fact, Reload) or self.pending, "nobody has reloaded"
        elif reason.startswith("its check"):
            step, since = world.canaries[verdict.generation][-1]
            assert (verdict.generation, step.step) not in world.checked, "its check has passed"
            canary = world.specs[verdict.generation].rollout.canary
            assert canary
            assert world.now >= since + canary.seconds, "its check had no time"
        else:
            assert re.search("worker|^hook ", reason), "P7: the reason names what happened"
            named = verdict.worker is None or str(verdict.worker) in reason
            assert named or "in time" in reason, "P7: the reason names the worker"


def ready_of(world: World, generation: Generation) -> int:
    return sum(p.able and p.id.generation == generation.number for p in world.processes.values())


def users_of(world: World) -> Counter[int]:
    return Counter(p.lease for p in world.processes.values() if p.active and not p.hung)


def is_exclusive(world: World) -> bool:
    both = filter(None, (world.fleet.current, world.fleet.trial))
    return any(g.spec.rollout.exclusive and not g.owes(hooks.Moment.BEFORE) for g in both)


def fingerprint(world: World) -> tuple[object, ...]:
    fleet = world.fleet
    return (
        tuple((w.id, w.state, w.deadline, w.recycle, w.finishing) for w in fleet.workers()),
        tuple((n, g.phase) for n, g in fleet.generations.items()),
        fleet.fed,
        tuple(fleet.unquiet.items()),
    )
