"""Every promise of the core, at every step of schedules that hypothesis invents.

The machine below only decides what happens next in a World; what must hold is in promises.py. A
failure prints the story in the format of the transcripts. A longer search:
`HYPOTHESIS_PROFILE=soak pytest tests/fleet/test_fleet_properties.py`.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace

from sockmgr.config.hooks import Hooks
from sockmgr.config.spec import SURGE_ALL, Accept, Accepting, Canary, Delay, Spec, Surge
from sockmgr.fleet.limits import Limit
from sockmgr.fleet.messages import Recycle, WorkerExited
from tests.fleet.story import BROKEN, hooked, listening, make_spec
from tests.fleet.world import Life, World

surges = st.sampled_from(
    [SURGE_ALL, SURGE_ALL, Surge(amount=1), Surge(amount=2), Surge(amount=25, percent=True)]
)
canaries = st.none() | st.builds(
    Canary,
    shares=st.sampled_from([(1,), (10,), (50,), (5, 25, 50), (33, 99)]),
    seconds=st.sampled_from([1.0, 30.0]),
    hold=st.sampled_from([False, False, True]),
    check=st.sampled_from([(), (), ("./smoke.sh",)]),
)
HOOKS = [Hooks(), Hooks(), Hooks(), hooked(before=7), hooked(ready=7), hooked(before=1, ready=1)]
statuses = st.sampled_from([0, 1, BROKEN, -9, -11, -15])
moments = st.sampled_from([0.0, 0.05, 0.3, 0.6, 2.0, 7.0, 12.0, 40.0])


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    return make_spec(
        draw(st.sampled_from(["v1", "v2", "v3"])),
        workers=draw(st.sampled_from([1, 1, 2, 3, 4, 4, 10])),
        ready=draw(st.sampled_from([Accepting(), Accepting(), Accepting(), Delay(seconds=1.0)])),
        ready_timeout=draw(st.sampled_from([5.0, 60.0])),
        drain_timeout=draw(st.sampled_from([0.0, 1.0, 30.0])),
        max_age=draw(st.sampled_from([None, None, None, 20.0])),
        surge=draw(surges),
        probation=draw(st.sampled_from([0.0, 1.0, 10.0])),
        max_failed_starts=draw(st.integers(1, 3)),
        start_concurrency=draw(st.sampled_from([1, 2, 4, 20])),
        max_draining=draw(st.integers(0, 3)),
        exclusive=draw(st.sampled_from([False, False, False, False, True])),
        accept=draw(st.sampled_from([Accept.SHARED, Accept.PER_WORKER])),
        canary=draw(canaries),
        hooks=draw(st.sampled_from(HOOKS)),
        listen=listening(*draw(st.sampled_from([["a"], ["a"], ["a", "b"], ["b"]]))),
    )


class FleetMachine(RuleBasedStateMachine):
    """A world in which anything may happen next."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.steps = 0
        self.accept: Accept | None = None

    def of(self, spec: Spec) -> Spec:
        """Return the spec with the way of accepting that this world keeps to, if it does."""
        return replace(spec, accept=self.accept or spec.accept)

    def pass_time(self, seconds: float) -> None:
        self.steps += 1
        self.world.now += seconds

    @initialize(
        spec=specs(),
        how=st.sampled_from(["well", "well", "badly", "by a reload"]),
        left=st.just([]) | st.lists(st.integers(0, 3), unique=True, max_size=3),
        accept=st.sampled_from([Accept.SHARED, Accept.PER_WORKER, Accept.PER_WORKER, None]),
    )
    def start(self, spec: Spec, how: str, left: list[int], accept: Accept | None) -> None:
        self.accept, spec = accept, replace(spec, accept=accept or spec.accept)
        if how == "by a reload":  # of a config that adds this service
            self.world.reload(spec)
            return
        self.world.start(spec, *left)
        if how == "well":
            self.world.be_kind()

    # --- What workers do -------------------------------------------------------------------------

    @precondition(lambda self: self.world.having(Life.BOOTING))
    @rule(data=st.data(), after=moments)
    def a_worker_becomes_ready(self, data: st.DataObject, after: float) -> None:
        worker = data.draw(st.sampled_from(self.world.having(Life.BOOTING)))
        self.pass_time(after)
        self.world.ready(worker)

    @precondition(lambda self: self.world.having(Life.BOOTING))
    @rule()
    def all_workers_become_ready(self) -> None:
        while self.world.having(Life.BOOTING):
            self.world.ready(*self.world.having(Life.BOOTING))

    @precondition(lambda self: self.world.having(Life.BOOTING, Life.SERVING))
    @rule(data=st.data(), status=statuses, took=st.booleans(), after=moments)
    def a_worker_ends(self, data: st.DataObject, status: int, *, took: bool, after: float) -> None:
        worker = data.draw(st.sampled_from(self.world.having(Life.BOOTING, Life.SERVING)))
        self.pass_time(after)
        self.world.exit(worker, status=status, took=took)

    @rule(after=moments)
    def clients_wait(self, after: float) -> None:
        self.pass_time(after)
        self.world.clients_wait()

    @precondition(lambda self: self.world.having(Life.SERVING))
    @rule(data=st.data(), status=statuses)
    def a_whole_generation_crashes(self, data: st.DataObject, status: int) -> None:
        generation = data.draw(st.sampled_from(self.world.having(Life.SERVING))).generation
        for worker in self.world.having(Life.SERVING, Life.BOOTING):
            if worker.generation == generation and worker in self.world.processes:
                self.world.tell(WorkerExited(worker=worker, status=status))

    @precondition(lambda self: self.world.having(Life.BOOTING))
    @rule(data=st.data())
    def a_worker_cannot_be_started(self, data: st.DataObject) -> None:
        self.world.fail(data.draw(st.sampled_from(self.world.having(Life.BOOTING))))

    @precondition(lambda self: self.world.having(Life.DRAINING, Life.KILLED))
    @rule(data=st.data(), after=moments)
    def a_worker_that_was_told_to_go_is_gone(self, data: st.DataObject, after: float) -> None:
        worker = data.draw(st.sampled_from(self.world.having(Life.DRAINING, Life.KILLED)))
        self.pass_time(after)
        self.world.exit(worker, status=data.draw(statuses))

    @precondition(lambda self: self.world.unfed)
    @rule(data=st.data())
    def a_queue_is_quiet(self, data: st.DataObject) -> None:
        self.world.quiet(data.draw(st.sampled_from(sorted(self.world.unfed))))

    @precondition(lambda self: self.world.hook)
    @rule(fault=st.sampled_from(["", "", "exited with status 1"]), after=moments)
    def a_hook_ends(self, fault: str, after: float) -> None:
        self.pass_time(after)
        self.world.hook_ends(fault)

    # --- What people do --------------------------------------------------------------------------

    @rule(spec=specs(), after=moments)
    def somebody_reloads(self, spec: Spec, after: float) -> None:
        self.pass_time(after)
        self.world.reload(self.of(spec))

    @rule(spec=specs(), times=st.integers(2, 6))
    def many_reload(self, spec: Spec, times: int) -> None:
        before = self.world.newest
        self.world.reload(self.of(spec))
        if self.world.fleet.trial is None:
            return  # nothing is wanted, so it was committed at once
        for _ in range(times):
            self.world.reload(self.of(spec))
        assert self.world.newest <= before + 1, "P6: a storm builds one now, one later"

    @precondition(lambda self: self.world.fleet.trial)
    @rule(which=st.sampled_from(["promote", "promote", "take back", "check"]), off=st.booleans())
    def somebody_decides(self, which: str, *, off: bool) -> None:
        """About the generation on trial, or about one that is not."""
        trial = self.world.fleet.trial
        assert trial
        number = trial.number - off
        if which == "promote":
            self.world.promote(number)
        elif which == "take back":
            self.world.take_back(number)
        else:
            self.world.check(number, trial.step - off)

    @precondition(lambda self: self.world.fleet.trial)
    @rule()
    def its_check_passes(self) -> None:
        trial = self.world.fleet.trial
        assert trial
        self.world.check(trial.number, trial.step)

    @rule(workers=st.sampled_from([0, 1, 1, 2, 3, 5, 9]))
    def somebody_scales(self, workers: int) -> None:
        self.world.scale(workers)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def a_worker_is_to_be_recycled(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.world.processes)))
        self.world.tell(Recycle(worker=worker, why="max_rss exceeded"))

    @precondition(lambda self: self.world.having(Life.SERVING))
    @rule(data=st.data(), limit=st.sampled_from([Limit.RSS, Limit.AGE]), all_of_them=st.booleans())
    def workers_reach_a_limit(
        self, data: st.DataObject, limit: Limit, *, all_of_them: bool
    ) -> None:
        workers = self.world.having(Life.SERVING)
        some = workers if all_of_them else [data.draw(st.sampled_from(workers))]
        self.world.wear_out(*some, limit=limit)

    @precondition(lambda self: self.world.having(Life.SERVING))
    @rule(data=st.data())
    def a_worker_hangs(self, data: st.DataObject) -> None:
        self.world.hang(data.draw(st.sampled_from(self.world.having(Life.SERVING))))

    @precondition(lambda self: self.world.having(Life.SERVING))
    @rule(data=st.data(), took=st.booleans(), after=moments)
    def a_worker_stops_by_itself(self, data: st.DataObject, *, took: bool, after: float) -> None:
        self.pass_time(after)
        worker = data.draw(st.sampled_from(self.world.having(Life.SERVING)))
        self.world.leave(worker, took=took)

    @precondition(lambda self: self.steps > 12)
    @rule(now=st.booleans())
    def somebody_stops_it(self, *, now: bool) -> None:
        if now:
            self.world.stop_now()
        else:
            self.world.stop()

    @precondition(lambda self: not self.world.stopped)
    @rule(after=moments)
    def the_manager_dies_and_another_takes_over(self, after: float) -> None:
        self.pass_time(after)
        self.world.succeed()

    # --- Time ------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.fleet.deadline < float("inf"))
    @rule(late=moments)
    def a_tick_is_due(self, late: float) -> None:
        self.steps += 1
        self.world.now = max(self.world.now, self.world.fleet.deadline) + late
        self.world.wait(0)

    @rule(seconds=moments)
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)
        self.world.wait(0)

    def teardown(self) -> None:
        """Whatever happened: every rollout ends, a kind world comes to rest, and stop stops."""
        world = self.world
        if world.broken:
            return
        world.be_hostile()
        world.be_kind()
        if self.steps % 2:
            world.stop()
        else:
            world.stop_now()
        world.be_kind()
        assert world.stopped
        assert world.answers.keys() == world.asked.keys()


TestFleet = FleetMachine.TestCase
