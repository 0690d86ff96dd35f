"""How many workers each generation is to have, given what there is: who is missing, who is to go.

Reads the records of a fleet and changes none: it is for the fleet to mend what differs. On which
queue anybody is, leases.py knows. Each number costs O(generations), whatever the workers are: it is
worked out from the counts of the rosters, and a list costs as much as there is on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

import msgspec

from sockmgr.config.hooks import Moment
from sockmgr.fleet.generation import HURRY, Generation, Worker
from sockmgr.fleet.messages import Phase
from sockmgr.fleet.roster import Roster, useful


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """A view of a fleet at one instant."""

    generations: Mapping[int, Generation]
    current: Generation | None
    trial: Generation | None
    stopping_since: float | None
    now: float

    @property
    def stopping(self) -> bool:
        return self.stopping_since is not None

    @property
    def exclusive(self) -> bool:
        """Whether no worker may run beside one of another generation."""
        newest = self.newest
        if newest is None or not newest.spec.rollout.exclusive:
            return False
        return not newest.owes(Moment.BEFORE)  # one that may not start yet is in nobody's way

    @property
    def rosters(self) -> Iterator[Roster]:
        """The workers of each generation, oldest first."""
        return (generation.roster for generation in self.generations.values())

    @property
    def newest(self) -> Generation | None:
        """The generation that is to serve, soon or now."""
        return self.trial or self.current

    # --- How many --------------------------------------------------------------------------------

    def target(self, generation: Generation) -> int:
        """Return the number of workers that `generation` is to have now."""
        current, trial = self.current, self.trial
        if self.stopping or generation.owes(Moment.BEFORE):
            return 0
        if generation.phase is Phase.RETIRING:
            return self._help(generation, current) if current and generation.may_be_met else 0
        # Both generations run in full side by side, as the cut-over takes one instant.
        if current is None or trial is None or (trial.instant and not self.exclusive):
            return generation.wanted
        if generation is trial:
            return self._rolling(trial, current)
        if trial.canary and not self.exclusive:
            return current.wanted  # it carries nearly everything until its successor is proven
        # Until the commit clients come to what it removes, and only the old generation has that.
        alone = min(current.wanted, 1) if current.spec.removed(trial.spec) else 0
        left = 0 if self.exclusive else max(alone, current.wanted - self.staying(trial))
        if trial.phase is Phase.PROBATION:
            # Once cut over, the old generation gives way but grows no more.
            return min(left, current.headcount + len(current.roster.replaced))
        return left

    def _help(self, generation: Generation, current: Generation) -> int:
        # A retiring generation helps out until enough others serve, but not for ever.
        served = self.staying(current)
        served += self.staying(self.trial) if self.trial and self.mixing else 0
        # One that was taken back as a canary helps only if nobody else can, others that retire too.
        others = served or (generation.canary and self._proven_retire)
        late = (self.now >= generation.deadline or generation.canary) and others
        return 0 if late or self.exclusive else max(0, current.wanted - served)

    @property
    def _proven_retire(self) -> bool:
        retiring = (g for g in self.generations.values() if g.phase is Phase.RETIRING)
        return any(g.ready and g.may_be_met and not g.canary for g in retiring)

    def _rolling(self, trial: Generation, current: Generation) -> int:
        # A rolling rollout starts as many as fit beside what the current generation still has.
        if trial.phase is Phase.PROBATION:
            return trial.wanted
        surge = trial.spec.rollout.surge.above(trial.wanted)
        if trial.canary:
            return min(trial.wanted, max(surge, trial.headcount))
        room = max(current.wanted, trial.wanted) + surge - current.headcount
        # Too little room is no reason to end one that runs already.
        return min(trial.wanted, max(room, trial.headcount))

    @property
    def mixing(self) -> bool:
        """Whether the generation on trial takes new connections already."""
        # One that rolls has no instant of cut-over: each worker is fed as soon as it is ready.
        trial = self.trial
        if trial is None or trial.phase is Phase.PROBATION:
            return trial is not None
        # A canary gets its share, and stands in for nobody.
        return not (trial.instant or trial.canary)

    # --- Who is missing --------------------------------------------------------------------------

    @property
    def starving(self) -> list[Generation]:
        """The generations whose next start is put off, longer than clients should wait.

        None as long as anybody is ready whom they may meet.
        """
        met = (each.roster.kinds for each in self.generations.values() if each.may_be_met)
        if self.stopping or any(kind.serves for kinds in met for kind in kinds):
            return []
        # A back-off spares the machine, but a client that waits is worth a start.
        generations = filter(None, (self.current, self.trial))
        late = (g for g in generations if g.not_before > self.now + HURRY)
        # A hook that has failed may do harm each time, so nobody hurries it.
        return [g for g in late if not (self._held(g) or g.owes(Moment.BEFORE))]

    def _held(self, generation: Generation) -> bool:
        return self.now < generation.held_until

    def waits(self, generation: Generation) -> bool:
        """Whether `generation` may start nobody now."""
        held = self.now < max(generation.not_before, generation.held_until)
        return self.stopping or held or generation.owes(Moment.BEFORE)

    def missing(self, generation: Generation) -> int:
        """Return how many workers `generation` is to get now."""
        target = self.target(generation)
        if generation.spec.rollout.exclusive:
            # Also one that drains is in the way: it may hold what only one process may have.
            others = any(each.by_slot for each in self.rosters if each is not generation.roster)
            return 0 if others else max(0, target - len(generation.workers))
        trial = self.trial
        if trial and trial.phase is Phase.PROBATION and not (trial.instant or generation is trial):
            return 0  # what it lacks is being recycled, and serves on
        return max(0, target - generation.headcount)

    # --- Who is too much -------------------------------------------------------------------------

    def surplus(self, generation: Generation) -> list[Worker]:
        """Return the workers of `generation` that are to go, who goes first first. O(those)."""
        roster, (members, replaced) = generation.roster, self.kept(generation)
        surplus = (*roster.members[members:], *roster.replaced[replaced:])
        return [*(place.worker for place in surplus), *_in_order(roster.rescues.values())]

    def why(self, worker: Worker) -> str:
        """Say why a worker of the surplus is to go."""
        if worker.rescue:
            return "the queue it was started for is empty or given up"
        return worker.recycle or self._why(self.generations[worker.id.generation])

    def staying(self, generation: Generation) -> int:
        """Return how many of `generation` can take a connection and are not to go."""
        roster, (members, replaced) = generation.roster, self.kept(generation)
        return min(members, useful(roster.members)) + min(replaced, useful(roster.replaced))

    def own_leases(self, generation: Generation) -> list[int]:
        """Return the leases of these, in the order in which they came. O(all that are kept)."""
        roster, (members, replaced) = generation.roster, self.kept(generation)
        able = roster.members[: min(members, useful(roster.members))]
        able += roster.replaced[: min(replaced, useful(roster.replaced))]
        return [worker.lease for worker in _in_order(place.worker for place in able)]

    def kept(self, generation: Generation) -> tuple[int, int]:
        """Return how many from the beginning of both orders of its roster are not to go."""
        # Who is replaced serves until a successor does, so each that is ready lets one of them go.
        target = self.target(generation)
        ready = min(target, useful(generation.roster.members))
        return target, 0 if self.exclusive else max(0, target - ready)

    def too_many(self) -> list[Generation]:
        """Return the generations, oldest first, that drain beyond what max_draining allows."""
        retiring = [g for g in self.generations.values() if g.phase is Phase.RETIRING and g.workers]
        draining = [g for g in retiring if not (g.ready and self.target(g))]
        if self.stopping or not draining:
            return []
        allowed = (self.current or draining[-1]).spec.rollout.max_draining
        return draining[: max(0, len(draining) - allowed)]

    def _why(self, generation: Generation) -> str:
        if self.stopping:
            return "stop"
        if generation.fault:
            return "aborted"
        if self.newest and self.newest is not generation:
            return f"generation {self.newest.number} takes over"
        return "scaled down"

    def deadlines(self) -> Iterator[float]:
        """Yield the instants at which a target changes though nothing happens."""
        for generation in self.generations.values():
            if generation.phase is Phase.RETIRING and self.target(generation):
                yield generation.deadline
            elif self.missing(generation):
                yield max(generation.not_before, generation.held_until)
        for generation in self.too_many():
            yield generation.roster.told.first()


def _in_order(workers: Iterable[Worker]) -> list[Worker]:
    return sorted(workers, key=attrgetter("arrival"))
