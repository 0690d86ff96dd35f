"""One service: feeds its fleet with facts, and performs at once what the fleet commands.

Only the fleet decides about workers. Nothing is awaited between `handle` and the last action.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from sockmgr.api.records import EventKind
from sockmgr.api.types import Progress, Verdict
from sockmgr.config.spec import Accept, Address, Spec
from sockmgr.fleet.endings import describe_exit
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.group import Together
from sockmgr.fleet.history import Origin
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    CanaryPassed,
    CanaryStep,
    ClientsWait,
    Committed,
    CutOver,
    Drain,
    EndHook,
    Fact,
    Feed,
    FeedFailed,
    Finish,
    Kill,
    Outcome,
    Quiet,
    Recycle,
    Recycled,
    Refuse,
    Reload,
    RunHook,
    Serving,
    Spawn,
    SpawnFailed,
    Start,
    Stopped,
    Tick,
    WaitedInVain,
    Wish,
    WorkerExited,
    WorkerId,
    WorkerReady,
    WorkerStopping,
)
from sockmgr.fleet.restoring import restore
from sockmgr.fleet.snapshot import ServiceSnapshot
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.renewal import Renewal
from sockmgr.manager.service.canary_watch import CanaryWatch
from sockmgr.manager.service.client_watch import ClientWatch
from sockmgr.manager.service.conditions import Conditions
from sockmgr.manager.service.hooks import Hooks
from sockmgr.manager.service.intake import Intake, Neighbours
from sockmgr.manager.service.lease_map import LeaseMap, addresses, lease_modes, takers
from sockmgr.manager.service.news import tell
from sockmgr.manager.service.past import Past
from sockmgr.manager.service.pooling import pooled
from sockmgr.manager.service.processes import Processes
from sockmgr.manager.service.repairs import Repairs
from sockmgr.manager.service.traffic import Leases, Traffic
from sockmgr.manager.service.upkeep import Upkeep
from sockmgr.manager.service.verdicts import Verdicts, ignore_progress, nothing
from sockmgr.manager.service.wishes import Facts, Wishes
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")


class Service(Wishes):
    """The shell around one fleet. `run` is its task; all other methods only put facts."""

    def __init__(
        self,
        name: str,
        context: WorkerContext,
        tasks: asyncio.TaskGroup,
        listener: Callable[[Address], Listener],
        upkeep: Upkeep,
        neighbours: Neighbours,
    ) -> None:
        """Run nothing yet; `upkeep` is called whenever the service has changed."""
        self.name = name
        self.unsaved, self._feeds_more = True, False  # what the next manager would not know
        self.fleet = Fleet()
        self.repairs = Repairs(lambda: self._traffic.untouched(dict(self.fleet.fed)))
        self._facts = Facts()
        self._context, self._upkeep, self._lease_map = context, upkeep, LeaseMap(listener)
        self._intake, self._neighbours = Intake(name, self._lease_map, neighbours), neighbours
        self.past = Past(name, context, lambda: self.put(Tick()))  # so it is saved
        self._verdicts = Verdicts(name, context.loop, tasks, lambda: self.past.history)
        put, report = self._facts.put_nowait, self._verdicts.report
        self.processes = Processes(name, context, self._lease_map, put, upkeep, lambda: self.fleet)
        self.hooks = Hooks(name, context, put, self._tell_of_hook, lambda: self.past.history)
        dispatching, owners = self.processes.dispatching, neighbours.owners
        self._traffic = Traffic(name, tasks, put, dispatching, owners)
        self._renewal = Renewal(lambda at, lease: self._intake.renew(self.fleet, at, lease))
        self._canary = CanaryWatch(name, context, self.processes, self._lease_map, put, report)
        self._conditions = Conditions(context.loop)
        self._clients = ClientWatch(context.loop, lambda: self._facts.put_nowait(ClientsWait()))

    # --- What others ask -----------------------------------------------------------------------

    def start(self, spec: Spec, patience: float = 0.0) -> None:
        """Run `spec` and never give up, after at most `patience` for those that it is after."""
        listeners = self._lease_map.of(spec)
        left = self._traffic.adopt(listeners)
        self._facts.put_nowait(Start(spec=pooled(spec, listeners), left=left, patience=patience))

    def resume(self, was: ServiceSnapshot, survivors: Mapping[WorkerId, Survivor]) -> None:
        """Go on with what another manager ran; `survivors` are its workers that were found."""
        self.fleet = restore(was, self._context.loop.time())
        self.past.resume(was.past, self.fleet)
        if anew := [x for x in map(self._lease_map.listener, self.addresses) if x.is_anew]:
            # In new queues clients wait elsewhere: the first Feed is to look after those as well.
            self.fleet.feeds(tuple(anew[0].fed.items()), self.fleet.unquiet)
        for worker in list(self.fleet.workers()):
            spec = self.fleet.generations[worker.id.generation].spec
            # A survivor, like any worker, may leave its queue open in a process that it started.
            self._renewal.given(worker.lease, spec)
            self.processes.adopt(worker, spec, survivors.get(worker.id))
        self.processes.private.sweep()
        self._know_fleet()
        fed = dict(self.fleet.fed)
        leases = self._lease_map.fed(self.fleet, fed)
        self._neighbours.owners.resume(self.name, leases)
        self._traffic.resume(fed, leases, self._unquiet())
        if self.fleet.trial:  # what it costs from here on; what it did before, nobody knows
            self._verdicts.measure(self._lease_map.of(self.fleet.trial.spec))
        self._facts.put_nowait(Tick())  # deadlines may have passed while there was no manager
        self._replace(self.processes.running.values() if anew else ())

    def replace_unheard(self) -> None:
        """Replace the workers if nobody reads their pipes any more: the next write may end them."""
        # By a whole generation: single workers that leave a shared queue may lose a connection.
        unheard = any(running.is_unheard for running in self.processes.running.values())
        if unheard and self.fleet.current:
            log.warning("nobody hears the workers", service=self.name, means="they are replaced")
            # A rollout under way comes first, and who is current then is not known yet.
            self.settled().add_done_callback(self._replace_by_its_like)

    def _replace_by_its_like(self, settled: asyncio.Future[None]) -> None:
        if not settled.cancelled() and not settled.exception() and self.fleet.current:
            same = self.past.history.origin(self.fleet.current.number)
            self.reload(self.fleet.current.spec.trusted(), ignore_progress, origin=same)

    def reload(
        self,
        spec: Spec,
        progress: Callable[[Progress], None],
        together: Together | None = None,
        patience: float = 0.0,
        origin: Origin | None = None,
        accept: Callable[[], object] = nothing,
    ) -> asyncio.Future[Verdict]:
        """Replace what runs by `spec`, `together` with others; the future holds the verdict.

        `accept` is called as soon as it commits, before that is saved.
        """
        number, verdict = self._verdicts.ask(progress, origin, accept)
        spec = pooled(spec, self._lease_map.of(spec))
        self.put(Reload(spec=spec, request=number, together=together, patience=patience))
        return verdict

    def remove(self) -> asyncio.Future[Verdict]:
        """Drain everything, since the config has no such service any more; the verdict says how."""
        verdict = self._verdicts.ask_for_removal([*map(self._lease_map.listener, self.addresses)])
        self.stop()
        if self.fleet.stopped:  # no Stopped comes, which would answer
            self._verdicts.stopped(self.fleet.last)
        return verdict

    def inspect(self, occasion: str, lease: int | None = None) -> None:
        """Mend what workers did to the listeners (with a lease: what its holder can have done)."""
        if self.repairs.inspect([*map(self._lease_map.listener, self.addresses)], occasion, lease):
            # New clients cannot reach these workers, which have the old socket.
            self._replace(each for each in self.processes.running.values() if each.is_detached)

    def _replace(self, workers: Iterable[WorkerProcess]) -> None:
        why = "its listener had to be replaced by a new socket"
        for running in workers:
            self._facts.put_nowait(Recycle(worker=running.id, why=why))

    @property
    def rolls(self) -> bool:
        """Whether a rollout is under way, or asked for."""
        return bool(self._verdicts.are_due or self.fleet.trial or self.fleet.pending)

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses that some living generation uses, or the next one will."""
        return addresses(self.fleet)

    # --- The task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take fact after fact until no worker is left and none is wanted."""
        while not self.fleet.stopped:
            self._take(await self._facts.next(self.fleet.deadline))
            # get() does not suspend while facts are there, and other tasks want the loop as well.
            await asyncio.sleep(0)
        while not self._facts.empty():
            self._take(self._facts.get_nowait())  # a reload asked too late gets its verdict as well
        self._traffic.close()
        self._clients.close()
        self._canary.close()
        self.past.close()
        self.processes.close()
        self._conditions.end(f"{self.name} was stopped meanwhile")

    def _take(self, fact: Fact) -> None:
        now = self._context.loop.time()
        # Both are noted first: handle() forgets a worker that has ended, and in which state.
        lease = self.fleet.lease_of(fact)
        self._note(fact, now)
        trial = self.fleet.trial
        self.fleet.beside(*self._neighbours.owners.tell(self.name))
        actions = self.fleet.handle(fact, now)
        self._neighbours.owners.follow(self.name)
        reached(fact)
        self._know_fleet()  # as handle() left it: a Feed needs the modes of its generations
        self.past.follow(self.fleet, actions, self._verdicts.origin(self.fleet.trial))
        for action in actions:
            self._perform(action)
            reached(action)
        # Not before: among the actions may be the verdict on the one whose place it takes.
        if self.fleet.trial and self.fleet.trial is not trial:
            self._verdicts.measure(self._lease_map.of(self.fleet.trial.spec))
        self._canary.keep_up(self.fleet.trial, self.fleet.current)
        self.processes.tellings.hear(actions, trial, self.fleet)
        self._look_after(fact, lease)
        self._keep_up(fact)
        self._save(fact, actions)
        if self.hooks.begin():  # of which the next manager knows: now of its process as well
            reached(Point.HOOK_STARTED)
            self.unsaved = True
            self._upkeep.now()
        self._neighbours.heed(self.name)

    def _note(self, fact: Fact, now: float) -> None:
        match fact:
            case WorkerReady():
                self._verdicts.count_warm_up(self.processes.see_ready(fact.worker, now))
            case WorkerStopping():
                self.processes.leave(fact.worker)
            case WorkerExited():
                worker = self.fleet.generations[fact.worker.generation].workers[fact.worker.slot]
                recycled = self.fleet.recycles(fact, now)
                moved = self.processes.running[fact.worker].moved
                well = self.processes.bury(worker, fact.status, recycled=recycled)
                self._verdicts.count_exit(worker.state, well=well, moved=moved)
            case SpawnFailed():
                self.processes.forget(fact.worker)

    def _look_after(self, fact: Fact, lease: int | None) -> None:
        # Servers change sockets as they start (listen(2)) and as they end (shutdown(2)).
        match fact:
            case WorkerReady():
                self.inspect(f"after {self.name}@{fact.worker} became ready", lease)
                self._verdicts.report_on(self.fleet.trial, fact.worker, "is ready")
            case WorkerExited():
                self.inspect(f"after {self.name}@{fact.worker} ended", lease)
                self._verdicts.report_on(self.fleet.trial, fact.worker, describe_exit(fact.status))

    def _keep_up(self, fact: Fact) -> None:
        fleet, weights = self.fleet, dict(self.fleet.fed)
        # The fleet decides when a Feed that failed is tried again. If we tried at once, the next
        # failure would be the next fact, without end.
        if not isinstance(fact, FeedFailed):
            self._traffic.keep_up(weights, self._lease_map.fed(fleet, weights))
        self._traffic.keep_waiting(fleet.unquiet.keys(), weights.keys(), self._unquiet)
        listeners = map(self._lease_map.listener, self.addresses if fleet.starves else ())
        self._clients.watch([queue for each in listeners for queue in each.queues])
        needed = () if fleet.stopping else (fleet.current, fleet.trial)
        self.processes.templates.end_all_but({each.number for each in needed if each})
        # Only these facts can take the last holder from a lease.
        is_free = isinstance(fact, WorkerExited | SpawnFailed | Quiet | Tick)
        if is_free and self._renewal.is_due(fleet):
            # The dispatcher accepts from all queues of its listeners, also from the unused ones.
            with self._traffic.untouched(weights):
                self._renewal.perform(fleet)

    def _save(self, fact: Fact, actions: Iterable[Action]) -> None:
        answered, self.unsaved = self._conditions.check(), True
        answered |= isinstance(fact, Wish) or any(isinstance(a, Outcome | RunHook) for a in actions)
        if answered or self._feeds_more:
            # In this turn of the loop: the next manager must know no less than a client, nor fewer
            # queues than clients come to. All processes are looked at: an output may have ended.
            self._feeds_more = False
            self.processes.changed.update(self.processes.running)
            self._upkeep.now()
            return
        if self.processes.fresh:
            # A process that no manager knows would take connections for ever.
            self._upkeep.spawned(self.name)
        self._upkeep.soon()

    # --- Commands ------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Feed():
                weights = dict(action.leases)
                self._feeds_more |= not weights.keys() <= self._traffic.leases
                self._traffic.feed(weights, self._lease_map.fed(self.fleet, weights))
            case Refuse():
                self._end_intake()
            case Drain():
                self._drain(action)
            case Finish():
                self.processes.finish(action)
            case Kill():
                self.processes.kill(action)
            case RunHook() | EndHook():
                self.hooks.perform(action)
            case _:
                self._tell(action)

    def _tell(self, outcome: Outcome) -> None:
        match outcome:
            case Serving() | CanaryStep() | CanaryPassed() | WaitedInVain() | Recycled():
                tell(self.name, outcome, self.processes.comparing.found)
            case CutOver():
                self._neighbours.owners.take(self.name, self.fleet.trial)
                self._verdicts.cut_over(outcome.generation, self.fleet.trial)
            case Committed():
                if not outcome.requests:
                    self._neighbours.accept_found(self.name)
                self._verdicts.committed(outcome, self.fleet, self.processes)
                self._see_off()
            case Aborted():
                self._neighbours.owners.take(self.name, self.fleet.current)
                words = self.hooks.words_of(outcome.generation)
                self._verdicts.aborted(outcome, self.fleet, self.processes, words)
                self._see_off()
            case Stopped():
                log.info(EventKind.STOPPED, service=self.name)
                self._verdicts.stopped(self.fleet.last)
            case _:
                assert_never(outcome)

    def _end_intake(self) -> None:
        self._intake.end(self.fleet)
        self._traffic.steer_no_more(dict(self.fleet.fed))
        # No new client can come, so the queues that are still fed can be waited for as well.
        self._traffic.wait_anew(self._unquiet())

    def _spawn(self, command: Spawn) -> None:
        # If the worker could not be started, nobody would answer the clients in its queue.
        if self.processes.spawn(command):
            self._renewal.given(command.lease, command.spec)
            self._traffic.expect(command.lease, self._intake.unserved(command.spec))

    def _drain(self, command: Drain) -> None:
        running = self.processes.running.get(command.worker)
        # From the first stop signal on, a connection that we accept may find no worker to take it.
        if self.fleet.stopping and running and running.ready:
            self._traffic.accept_no_more()
        self.processes.drain(command, at_once=self.fleet.stopping)

    def _see_off(self) -> None:
        """Refuse new clients at removed listeners, and wait until those who came are served."""
        # Once a listener refuses, the queues of all its leases have to become empty.
        if self._intake.refuse_removed(self.fleet):
            self._traffic.wait_anew(self._unquiet())

    # --- Small things --------------------------------------------------------------------------

    def _tell_of_hook(self, generation: int, moment: str, news: str) -> None:
        self._verdicts.report_hook(self.fleet.trial, generation, moment, news)

    def _unquiet(self) -> Leases:
        return self._lease_map.unquiet(self.fleet, self.addresses)

    def _know_fleet(self) -> None:
        """Adapt to the fleet's records as they are now."""
        self._traffic.modes = lease_modes(self.fleet, self._lease_map)
        self.processes.keep_moves(takers(self.fleet))
        self.processes.figures.keep(self.fleet.generations)
        self.processes.see_health(self.fleet.current)
        serving = self.fleet.serving
        # One dispatcher serves all generations, so its policy is that of the one that serves.
        if serving and serving.spec.accept is Accept.DISPATCH:
            self.processes.dispatching.configure(serving.spec, in_turn=self.fleet.share > 0)
