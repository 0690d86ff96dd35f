"""The promises that can be checked when a fact has been answered and all actions are performed."""

from __future__ import annotations

import math
from collections import Counter

from sockmgr.config import hooks
from sockmgr.fleet.fleet import SPAWN_BATCH
from sockmgr.fleet.generation import BACKOFF_MAX, HURRY, Generation
from sockmgr.fleet.leases import RESCUE_DELAY
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    ClientsWait,
    Committed,
    Kill,
    Phase,
    Scale,
    Spawn,
    State,
    Tick,
)
from sockmgr.fleet.roster import NOTICE
from sockmgr.worker.deadline import FINISH
from tests.fleet import recount
from tests.fleet.answers import Answer, fingerprint, is_exclusive, ready_of, users_of

IDLE_TICKS = 2  # as many soft deadlines may pass in a row without anything to do
LIVES = {"booting": State.STARTING, "serving": State.READY, "draining": State.DRAINING,
         "killed": State.KILLED}  # fmt: skip


class Moment(Answer):
    """One fact, and the world that its answer leaves."""

    def check_after(self, actions: list[Action]) -> None:
        recount.check(self.world.fleet)
        self._check_views_agree()
        self._check_one_rollout(actions)
        self._check_given_up(actions)
        self._check_deadline(actions)
        self._check_begun()
        if self.world.fleet.stopping:
            answered = self.world.answers.keys() == self.world.asked.keys()
            assert answered, "P6: after stop every request is answered"
        elif self.world.fleet.current is None:
            self._forget_given_up()
        else:
            self._check_somebody_serves()
            self._check_fed()
            self._check_share()
            self._check_own_leases()
            self._check_filled()
            self._check_max_draining()
            self._check_rescued()
            self._check_haste(actions)

    def _check_views_agree(self) -> None:
        world = self.world
        ours = {p.id: LIVES[p.life] for p in world.processes.values()}
        assert ours == {w.id: w.state for w in world.fleet.workers()}
        assert tuple(world.fed.items()) == world.fleet.fed
        run = world.fleet.hook
        assert world.hook == (run and (run.generation, run.moment))
        assert world.hook_is_dying == bool(run and run.ending)
        for generation in world.fleet.generations.values():
            assert generation.workers or generation.phase is not Phase.RETIRING, "gone, yet listed"

    def _check_one_rollout(self, actions: list[Action]) -> None:
        fleet = self.world.fleet
        trying = (Phase.BOOTING, Phase.CANARY, Phase.PROBATION)
        tried = [g for g in fleet.generations.values() if g.phase in trying]
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
        hopeless = not left.done and (
            left.life == "serving"
            or status in left.spec.broken_exits
            or self.world.failed_starts[self.trial] >= rollout.max_failed_starts
        )
        told = [a for a in actions if isinstance(a, Aborted) and a.generation == self.trial]
        assert told or not hopeless, f"P7: generation {self.trial} is not aborted"

    def _check_deadline(self, actions: list[Action]) -> None:
        world, deadline = self.world, self.world.fleet.deadline
        waits = any(p.life != "serving" for p in world.processes.values()) or bool(world.hook)
        trial = world.fleet.trial
        if trial and trial.phase is Phase.CANARY and trial.canary and trial.canary.hold:
            trial = None  # it waits for somebody
        if not world.fleet.stopping:
            waits = waits or bool(trial or world.fleet.unquiet)
        if waits:
            assert deadline < math.inf, "P5: somebody waits, and nothing is due"
        spawned = [a for a in actions if isinstance(a, Spawn)]
        if deadline <= world.now:
            assert len(spawned) == SPAWN_BATCH, "P5: due at once without need: a busy loop"
        ticked = isinstance(self.fact, Tick) and self.due
        changed = actions or fingerprint(world) != self.before_print
        world.idle = world.idle + 1 if ticked and not changed else 0
        assert world.idle <= IDLE_TICKS, "P11: it wakes up again and again for nothing"

    def _check_begun(self) -> None:
        fleet = self.world.fleet
        begun = set(fleet.generations) - self.generations
        for generation in (fleet.generations[n] for n in sorted(begun)):
            lease = generation.lease
            if lease is None:
                continue  # there is nothing to share but the leases of its workers: _check_lease
            sharers = [
                g for g in fleet.generations.values() if g.lease == lease and g is not generation
            ]
            inherits = generation.spec.rollout.exclusive or not any(
                ready_of(self.world, g) for g in sharers
            )
            assert inherits, f"lease {lease} is shared by two generations that could serve"
            current = fleet.current
            left = current is not None and not ready_of(self.world, current)
            assert sharers or left or self.world.now >= self.unfed.get(lease, -math.inf), (
                f"lease {lease} is used again before it is quiet"
            )

    def _check_somebody_serves(self) -> None:
        world, fleet = self.world, self.world.fleet
        assert fleet.current is not None
        wanted = min(g.wanted for g in (fleet.current, fleet.trial) if g)
        if self.exclusive or is_exclusive(world) or not wanted:
            return
        serving = len(world.serving())
        able = [p.id for p in world.processes.values() if p.able]
        assert serving or not able, f"P2: nobody serves, though {able} could"
        before = len(self.serving - self.stopgaps)
        assert serving >= min(before, wanted), (
            f"P2: {before} served, {wanted} are wanted, {serving} are left by our own decision"
        )

    def _check_fed(self) -> None:
        world, current = self.world, self.world.fleet.current
        able = {p.lease for p in world.processes.values() if p.able}
        fed = {lease for lease, weight in world.fed.items() if weight}
        if able & fed:
            assert fed <= able, f"{world.fed} is fed, and only {able} are served"
        else:
            assert len(fed) <= 1, f"nobody serves, and what comes is spread over {world.fed}"
        has = [p.spec.addresses for p in world.processes.values() if p.able and p.lease in fed]
        if current and has and (lacked := current.spec.addresses.difference(*has)):
            beside = world.fed.keys() - fed or current.lease in fed
            assert beside, f"{lacked} is fed to nobody who has it"

    def _check_share(self) -> None:
        """A canary gets its share exactly; one that is not one yet, or was one, nothing."""
        world, fleet = self.world, self.world.fleet
        mine: Counter[int] = Counter()
        for p in world.processes.values():
            if p.able and p.lease in world.fed:
                mine[p.id.generation] = sum(
                    world.fed[lease]
                    for lease in {
                        q.lease
                        for q in world.processes.values()
                        if q.able and q.id.generation == p.id.generation
                    }
                    & world.fed.keys()
                )
        trial, total = fleet.trial, sum(mine.values())
        if trial and trial.share and mine[trial.number] < total and ready_of(world, trial):
            assert mine[trial.number] * 100 == trial.share * total, (
                f"generation {trial.number} is to get {trial.share} % and is fed {world.fed}"
            )
        for generation in fleet.generations.values():
            if generation.canary and not generation.share:
                assert mine[generation.number] in (0, total), (
                    f"generation {generation.number} is not proven, and is fed {world.fed}"
                )

    def _check_own_leases(self) -> None:
        """Where each worker has its own, nobody shares, and nobody who is ready is passed over."""
        world, fleet = self.world, self.world.fleet
        alive = [p for p in world.processes.values() if p.life != "killed" and not p.leaving]
        living = [p for p in alive if not p.rescue]
        holders = Counter(p.lease for p in living)
        for generation in fleet.generations.values():
            if generation.lease is not None or generation.spec.rollout.exclusive:
                continue
            mine = [p for p in living if p.id.generation == generation.number]
            shared = [p.id for p in mine if holders[p.lease] > 1]
            assert not shared, f"{shared} share their leases with others"
            if generation is fleet.current and fleet.trial is None:
                members = [p for p in mine if p.able and not p.recycled]
                given = [p for p in members if p.lease in world.fed]
                assert len(given) >= min(len(members), generation.wanted), (
                    f"of {[p.id for p in members]}, who are ready, only {len(given)} are fed"
                )

    def _check_filled(self) -> None:
        fleet = self.world.fleet
        current, trial = fleet.current, fleet.trial
        assert current is not None
        if is_exclusive(self.world) or fleet.deadline <= self.world.now:
            return
        helped = 0
        if trial and not trial.instant:
            if trial.phase is Phase.PROBATION:
                return
            helped = ready_of(self.world, trial)
        self._check_full(current, helped)
        if trial and trial.instant:
            self._check_full(trial, 0)

    def _check_full(self, generation: Generation, helped: int) -> None:
        mine = [p for p in self.world.processes.values() if p.id.generation == generation.number]
        members = sum(p.active and not (p.rescue or p.recycled) for p in mine)
        booting = sum(p.life == "booting" for p in mine)
        assert generation.not_before <= self.world.now + BACKOFF_MAX
        excused = (
            self.world.now < generation.not_before
            or generation.owes(hooks.Moment.BEFORE)
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
            is_exclusive(world)
            or current.owes(hooks.Moment.BEFORE)
            or current.spec.rollout.exclusive
            or not ready_of(world, current)
            or not current.wanted
            or world.now < current.not_before
            or booting >= current.spec.rollout.start_concurrency
            or world.fleet.deadline <= world.now
        )
        users = users_of(world)
        for lease, unfed in list(world.unfed.items()):
            waited = world.now >= unfed.since + RESCUE_DELAY
            assert excused or not waited or users[lease] or lease not in world.fleet.unquiet, (
                f"connections wait in lease {lease}, and nobody is sent to take them"
            )
            known = lease in world.fleet.unquiet or self._in_vain(lease)
            assert known or excused, f"the connections in lease {lease} are forgotten"
        self._forget_given_up()

    def _forget_given_up(self) -> None:
        for lease in self.world.unfed.keys() - self.world.fleet.unquiet.keys():
            del self.world.unfed[lease]

    def _in_vain(self, lease: int) -> bool:
        """Whether one who was sent to empty this lease has had the time for it."""
        return any(
            p.rescue and p.lease == lease and self.world.now >= p.ready_at + p.spec.drain_timeout
            for p in self.world.processes.values()
        )

    def _check_max_draining(self) -> None:
        """Of the generations that drain, those beyond the limit were told to end now, or just
        told to stop; and none of these outlives that order for long."""
        fleet, processes = self.world.fleet, self.world.processes.values()
        assert fleet.current is not None
        draining = [p for p in processes if p.life == "draining"]
        at_leisure = {
            p.id.generation
            for p in draining
            if fleet.generations[p.id.generation].phase is Phase.RETIRING
            and p.finish_at == math.inf
            and self.world.now >= p.told_at + NOTICE
        }
        allowed = fleet.current.spec.rollout.max_draining
        helping = {p.id.generation for p in processes if p.life == "serving"}
        assert len(at_leisure - helping) <= allowed, f"max_draining: {at_leisure}, not {allowed}"
        late = [p.id for p in draining if self.world.now >= p.finish_at + FINISH]
        assert not late, f"{late} were told to end now, and are not killed"

    def _check_haste(self, actions: list[Action]) -> None:
        """Who served and ended is replaced at once; who waits, soon; a crash loop is slow."""
        world, left = self.world, self.world.left
        trying = [g for g in (world.fleet.current, world.fleet.trial) if g]
        able = [p.id for p in world.processes.values() if p.life == "serving" and not p.hung]
        failed = any(isinstance(a, Kill) for a in actions)  # in this very moment: they ask again
        if left and left.active and left.done and not failed:
            off = [g for g in trying if g.number == left.id.generation and g.not_before > world.now]
            assert not off, f"the successor of {left.id}, which had served, is put off"
        if isinstance(self.fact, ClientsWait) and not (able or failed):
            hurried = [g for g in trying if not g.owes(hooks.Moment.BEFORE)]
            off = [g for g in hurried if g.not_before > world.now + HURRY]
            assert not off, "clients wait, nobody serves, and nobody will soon"
        assert not (world.fleet.starves and able), f"it starves, though {able} serve"
