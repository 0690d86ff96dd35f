"""The shell of one service on the pretended kernel: sockmgr's own Service, with pretended parts.

What decides is the real code: Service, its Fleet, Traffic, Intake, LeaseMap, Verdicts and History.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sockmgr.api.types import Receipt
from sockmgr.config.spec import Accept, Address, Spec
from sockmgr.errors import ListenError
from sockmgr.fleet.fleet import STOPPING, Fleet
from sockmgr.fleet.generation import Worker
from sockmgr.fleet.messages import (
    Aborted,
    Action,
    ClientsWait,
    Committed,
    Drain,
    EndHook,
    Fact,
    Finish,
    HookDone,
    Kill,
    Outcome,
    RunHook,
    Spawn,
    SpawnFailed,
    State,
    Tick,
    Together,
    WorkerExited,
    WorkerId,
    WorkerReady,
)
from sockmgr.fleet.snapshot import HookSnapshot, ProcessSnapshot
from sockmgr.fleet.turnover import TOO_MANY
from sockmgr.manager.listeners.renewal import Renewal
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.service.intake import Intake
from sockmgr.manager.service.lease_map import LeaseMap
from sockmgr.manager.service.past import Past
from sockmgr.manager.service.service import Service
from sockmgr.manager.service.traffic import Traffic, _getting
from sockmgr.manager.service.verdicts import Verdicts, ignore_progress
from sockmgr.manager.workers.survivor import CHANNEL, PIDFD
from tests.simulation.dispatching import Dispatching
from tests.simulation.kernel import Broken, Holdings, Life, Listener, Place, Process, Queue
from tests.simulation.moving import ServiceMoves

if TYPE_CHECKING:
    from tests.simulation.manager import Manager

KEPT_WORDS = LastWords()
RECEIPT = Receipt(queue_peak=0, overflows=0, drained=0, killed=0, draining=0, cutover="steered")


class Nothing:
    """Parts of a service that watch, log or wait for something that is not pretended."""

    __slots__ = ()  # it keeps nothing: all copies of a world have the same
    died = moved = 0
    found = flaw = None

    def none(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    close = watch = keep_up = until = end = hear = tell = keep = sweep = find = drop = none
    bury = give_up = cancel = create_task = end_all_but = none

    def no(self, *_: Any, **__: Any) -> bool:
        """Have nothing to tell."""
        return False

    check = inspect = make = no
    take = none


class Answer:
    """The future of one verdict, which may be given once."""

    def __init__(self) -> None:
        self._result: Any = None
        self._callbacks: list[Callable[[Answer], object]] = []

    def done(self) -> bool:
        return self._result is not None

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None:
        return None

    def result(self) -> Any:
        return self._result

    def set_result(self, result: Any) -> None:
        if self.done():
            raise Broken("P6: a request is answered twice")
        self._result = result
        for call in self._callbacks:
            call(self)

    def add_done_callback(self, call: Callable[[Answer], object]) -> None:
        self._callbacks.append(call)


class Facts:
    """The facts that wait, in order."""

    def __init__(self) -> None:
        self.waiting: deque[Fact] = deque()

    def put_nowait(self, fact: Fact) -> None:
        self.waiting.append(fact)

    def get_nowait(self) -> Fact:
        return self.waiting.popleft()

    def empty(self) -> bool:
        return not self.waiting


class ServiceVerdicts(Verdicts):
    """The real ones, which measure nothing."""

    def measure(self, listeners: Any) -> None: ...

    def _receipt(self, *_: Any) -> Receipt:
        return RECEIPT


class QueueDrain:
    """Waits as sockmgr.manager.listeners.queue_drain does: first for handshakes, then for all."""

    GIVEN_UP = 10.0

    def __init__(self, leases: Mapping[int, Collection[Listener]], since: float) -> None:
        self.waiting: dict[int, list[tuple[Queue, ...]]] = {lease: [] for lease in leases}
        self.given_up_at = since + self.GIVEN_UP
        queues: set[Queue] = set()
        for lease, listeners in leases.items():
            for listener in listeners:
                mine = tuple(listener.unfinished(lease))
                self.waiting[lease].append(mine)
                queues.update(mine)
        self.half = [c for queue in queues for c in queue.half]

    def queues(self) -> list[Queue]:
        return [q for mine in self.waiting.values() for each in mine for q in each]

    def leave_out(self, lease: int) -> bool:
        self.waiting.pop(lease, None)
        return bool(self.waiting)

    def look(self, now: float) -> list[int]:
        """Return the leases that are quiet now, and wait for them no longer."""
        self.half = [each for each in self.half if each.place is Place.HANDSHAKE]
        if self.half and now < self.given_up_at:
            return []
        for each in self.half:
            if each.queue:
                each.queue.half.remove(each)
            each.lose("its handshake took too long in a drain")
        self.half.clear()
        quiet = [
            lease
            for lease, mine in self.waiting.items()
            if not any(q.waiting and not q.is_closed for each in mine for q in each)
        ]
        for lease in quiet:
            del self.waiting[lease]
        return quiet


class ServiceTraffic(Traffic):
    """The real one, whose drains are pretended."""

    _manager: Manager

    def adopt(self, listeners: tuple[Any, ...]) -> tuple[int, ...]:
        del listeners
        return ()

    def _owe_quiet(self, unfed: Any) -> None:
        if unfed:
            drain = QueueDrain(unfed, self._manager.time())
            self._owed |= dict.fromkeys(unfed, (drain, Nothing()))

    def _be_quiet(self, lease: int) -> None:
        owed = self._owed.get(lease)
        if taken := self._dispatching.quiet(lease):
            taken.add_done_callback(partial(self._taken, lease, owed))
        else:
            self._put_quiet(lease, owed)

    def _taken(self, lease: int, owed: Any, answer: Answer) -> None:
        del answer
        self._put_quiet(lease, owed)

    def drains(self) -> list[QueueDrain]:
        return list(dict.fromkeys(drain for drain, _ in self._owed.values()))

    def look(self, now: float) -> None:
        for drain in self.drains():
            for lease in drain.look(now):
                self._be_quiet(lease)


class Clients:
    """Who waits while nobody is ready."""

    def __init__(self, put: Callable[[Fact], None]) -> None:
        self._put, self._queues = put, ()

    def watch(self, queues: Any) -> None:
        self._queues = tuple(queues)

    def close(self) -> None:
        self._queues = ()

    def look(self) -> None:
        if any(queue.waiting for queue in self._queues):
            self.close()
            self._put(ClientsWait())


class ServiceHooks:
    """The hook that a rollout waits for."""

    def __init__(self, service: ServiceShell) -> None:
        self._service, self._put = service, service.put
        self.order: HookSnapshot | RunHook | None = None
        self.is_running = self.is_dying = False
        self.pid = 0

    def perform(self, action: RunHook | EndHook) -> None:
        if isinstance(action, EndHook):
            self.is_dying = True
        else:
            if self.order:
                raise Broken("two hooks of a service run at once")
            self.order, self.is_running = action, False

    def begin(self) -> bool:
        if self.order is None or self.is_running:
            return False
        self.is_running = True
        key = self._service.name, self.order.generation, self.order.moment
        self._service.manager.world.hooks.add(key)
        return True

    def adopt(self, was: HookSnapshot, *, began: bool) -> None:
        self.order = was
        self.is_running, self.is_dying = True, was.ending
        if not began:
            self.end("was not started")

    def end(self, fault: str) -> None:
        order, self.order = self.order, None
        self.is_running = False
        if order:
            fault = "was killed" if self.is_dying else fault
            self.is_dying = False
            done = HookDone(generation=order.generation, moment=order.moment, fault=fault)
            self._put(done)

    descriptors: Mapping[str, int] = {}

    @property
    def written(self) -> ProcessSnapshot | None:
        return ProcessSnapshot(pid=1, started=1) if self.is_running else None

    def words_of(self, generation: int) -> LastWords:
        del generation
        return KEPT_WORDS


class Running:
    """A worker's process as the manager knows it."""

    moved = 0
    is_detached = heard = False
    stopped_descendants = ()

    def __init__(self, process: Process) -> None:
        self.is_unheard = False
        self.process, self.id, self.lease = process, process.id, process.lease
        self.name, self.spec = f"{process.service}@{process.id}", process.spec
        self.ready = self.stopping = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def channel(self) -> Any:
        return self.process.channel

    @property
    def descriptors(self) -> dict[str, int]:
        """What is stored of it: a pidfd, and the channel if it has one, here by their numbers."""
        channel = {CHANNEL: self.channel.id} if self.channel else {}
        return Holdings({PIDFD: self.pid, **channel})


class Processes:
    """The interface of sockmgr.manager.service.processes on the pretended kernel."""

    killed = died = 0

    def __init__(self, service: ServiceShell, manager: Manager) -> None:
        self._service, self._manager, self._kernel = service, manager, manager.kernel
        self.running: dict[WorkerId, Running] = {}
        self.fresh: set[WorkerId] = set()
        self.changed: set[WorkerId] = set()
        self.to_tell: list[Running] = []
        self.figures = self.comparing = self.tellings = self.private = self.templates = Nothing()
        self.dispatching = Dispatching(service.name, manager)
        self.moves = ServiceMoves(service.name, manager.kernel)

    # --- Orders ----------------------------------------------------------------------------------

    def spawn(self, command: Spawn) -> bool:
        kernel, put = self._kernel, self._service.put
        error = ""
        try:
            if kernel.fails("spawn"):
                error = "Resource temporarily unavailable"
            else:
                for listener in self._listeners(command.spec):
                    listener.lease(command.lease)
        except ListenError as failure:
            error = failure.what
        if error:
            put(SpawnFailed(worker=command.worker, error=error))
            return False
        process = kernel.start(self._service.name, command.worker, command.spec, command.lease)
        if command.spec.accept is Accept.DISPATCH:
            process.channel = kernel.channel()
        else:
            found = self._listeners(command.spec)
            process.queues = [each.queue(command.lease) for each in found]
        self.running[command.worker] = running = Running(process)
        moves = self.moves.of(command.spec)
        process.moves = moves.take.queue if moves else None
        if process.moves and process.moves.is_shut:
            raise Broken(f"{process} starts with {process.moves}, which was ended")
        self.dispatching.attach(running, moves)
        self.fresh.add(command.worker)
        self.changed.add(command.worker)
        return True

    def _listeners(self, spec: Spec) -> list[Listener]:
        return [self._manager.listeners.at(each.address) for each in spec.listen]

    def adopt(self, worker: Worker, spec: Spec, survivor: Process | None) -> None:
        if survivor is None:
            lost = "its manager died before it could be told of"
            self._service.put(SpawnFailed(worker=worker.id, error=lost))
            return
        running = self.running[worker.id] = Running(survivor)
        running.ready = survivor.life is not Life.BOOTING
        self.dispatching.attach(running, self.moves.of(spec))
        self.changed.add(worker.id)
        if survivor.life is Life.DEAD:
            self._manager.see_end(survivor)
            return
        if worker.state is State.STARTING and running.ready and survivor.channel is None:
            self._service.put(WorkerReady(worker=worker.id))
        if worker.state is State.KILLED:
            self._kill(running, "killed again by the next manager")
        elif worker.state is State.DRAINING:
            self._tell_to_stop(running)
        elif worker.leaving:
            self.dispatching.abandon(running)

    def drain(self, command: Drain, *, at_once: bool) -> None:
        running = self.running.get(command.worker)
        if running is None:
            return
        if not at_once and command.why != TOO_MANY:
            self._check_drain(running)
        if at_once:
            self._tell_to_stop(running)
        else:
            self.to_tell.append(running)

    def _check_drain(self, running: Running) -> None:
        """Have nobody told to stop while clients wait for nobody else, but after a while."""
        fleet, process, now = self._service.fleet, running.process, self._kernel.now
        exclusive = any(g.spec.rollout.exclusive for g in (fleet.current, fleet.trial) if g)
        known = fleet.find(process.id)
        if process.life is not Life.SERVING or exclusive or known is None or known.hung:
            return
        if not fleet.generations[process.id.generation].may_be_met:
            return  # it was taken back: who waits is for the next worker of the generation before
        # As far as the fleet knows: who hangs unseen, or leaves without a word, counts as well.
        able = {worker.id for worker in fleet.workers() if worker.active and not worker.hung}
        others = [r.process for r in self.running.values() if r is not running and r.id in able]
        for queue in process.queues:
            group = self._kernel.groups.get(queue.address)
            waiting = [each for each in queue.waiting if not each.why_lost]
            if not waiting or group is None or not group.is_steered:
                continue
            if any(queue in p.queues for p in others):
                continue
            since = fleet.unquiet.get(running.lease, self._manager.world.unquiet.get(running.lease))
            if since is None or now < since + process.spec.drain_timeout / 2:
                raise Broken(f"{process} is told to stop, and {waiting[0]} waits in its {queue}")

    def tell_all(self) -> None:
        """Send the stop signals whose turn has come."""
        late, self.to_tell = self.to_tell, []
        for running in late:
            if self.running.get(running.id) is running:
                self._tell_to_stop(running)
                self.changed.add(running.id)
                self._service.unsaved = True
                self._manager.upkeep.soon()

    def _tell_to_stop(self, running: Running) -> None:
        running.stopping = True
        if running.process.life is Life.SERVING:
            running.process.be_told()
        elif running.process.life is Life.BOOTING:
            self._manager.world.end(running.process, -15, "it had not begun")

    def finish(self, command: Finish) -> None:
        if running := self.running.get(command.worker):
            process = running.process
            if process.life is not Life.DEAD:
                self._manager.world.end(process, 0, "told to end now (max_draining)")

    def kill(self, command: Kill) -> None:
        if running := self.running.get(command.worker):
            self._kill(running, command.why)

    def _kill(self, running: Running, why: str) -> None:
        if running.process.life is not Life.DEAD:
            self._manager.world.end(running.process, -9, f"killed: {why}")

    def leave(self, id: WorkerId) -> None:
        if running := self.running.get(id):
            self.dispatching.abandon(running)

    def bury(self, worker: Worker, status: int, *, recycled: bool) -> bool:
        del status, recycled
        running = self.running.pop(worker.id)
        self._manager.forget(running.process)
        self.changed.add(worker.id)
        self.dispatching.detach(running)
        return True

    def forget(self, id: WorkerId) -> None:
        if unmade := self.running.pop(id, None):
            self.changed.add(id)
            self.dispatching.detach(unmade)

    # --- What it is asked ------------------------------------------------------------------------

    def see_ready(self, id: WorkerId, now: float) -> None:
        del now
        if running := self.running.get(id):
            running.ready = True
            self.changed.add(id)

    def keep_moves(self, takers: Iterable[Spec]) -> None:
        before = self.moves.inodes
        if self.moves.keep(takers):
            self.dispatching.keep_queues(self.moves.inodes)
            ended = set(before) - set(self.moves.inodes)
            self._manager.world.see_ended_moves(self._service, ended)

    def see_health(self, *_: Any) -> None: ...
    def forget_words(self) -> None: ...
    def close(self) -> None: ...
    def end_strays(self) -> None: ...

    def words_of(self, id: WorkerId) -> LastWords:
        del id
        return KEPT_WORDS

    def newest(self, number: int) -> list[int]:
        del number
        return []


def written(running: Running) -> ProcessSnapshot:
    """Return a process as the state names it."""
    pid = running.pid
    return ProcessSnapshot(pid=pid, started=pid, told=running.stopping, ready=running.ready)


class ServiceShell(Service):
    """The real Service, whose parts that touch a kernel are pretended."""

    def __init__(self, name: str, manager: Manager) -> None:
        self.name, self.manager = name, manager
        self.unsaved, self._feeds_more = True, False
        self.fleet = Fleet()
        self._facts = Facts()
        self._context: Any = manager
        self._lease_map = LeaseMap(manager.listeners.at)
        self._upkeep = manager.upkeep
        self._neighbours: Any = manager.services
        self._intake = Intake(name, self._lease_map, self._neighbours)
        self.past = Past(name, self._context, self._tick)
        self._verdicts = ServiceVerdicts(name, self._context, None, self._history)
        self.processes: Any = Processes(self, manager)
        self.hooks: Any = ServiceHooks(self)
        self._traffic = ServiceTraffic(
            name, None, self.put, self.processes.dispatching,
            manager.services.owners,
        )  # fmt: skip
        self._traffic._manager = manager
        self._renewal = Renewal(self._renew)
        self.repairs = self._canary = self._conditions = Nothing()
        self._clients = Clients(self.put)
        self._before: Any = None
        self.deadline = math.inf  # the fleet's, which takes a while to ask for
        self.actions: list[Action] = []
        self.had: frozenset[Address] = frozenset()  # all that it ever had

    def _tick(self) -> None:
        self.put(Tick())

    def _history(self) -> Any:
        return self.past.history

    def _renew(self, at: Any, lease: int) -> None:
        self.manager.world.see_renewed(self, at, lease)
        self._intake.renew(self.fleet, at, lease)

    def until(self, met: Callable[[], bool]) -> None:  # nobody waits here
        del met

    # --- One fact --------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        return not self._facts.empty() or self.deadline <= self.manager.kernel.now

    def turn(self) -> None:
        """Take one fact, or a Tick."""
        fact = Tick() if self._facts.empty() else self._facts.get_nowait()
        if isinstance(fact, WorkerExited) and fact.worker not in self.processes.running:
            raise Broken(f"{self.name}@{fact.worker} ends twice")
        world = self.manager.world
        self._before = self.fleet.trial
        world.begin(self, fact)
        self._take(fact)
        self.had |= self.addresses
        self.deadline = self.fleet.deadline
        world.took(self, fact)

    def _perform(self, action: Action) -> None:
        if self.manager.world.story is not None:
            self.actions.append(action)
        super()._perform(action)

    def _tell(self, outcome: Outcome) -> None:
        super()._tell(outcome)
        if isinstance(outcome, Committed | Aborted):
            is_ours = self._before and self._before.number == outcome.generation
            committed = isinstance(outcome, Committed)
            self.manager.world.is_aborted |= not committed
            trial = self.fleet.current if committed else self._before if is_ours else None
            if trial and trial.together and trial.number == outcome.generation:
                stopped = isinstance(outcome, Aborted) and outcome.reason == STOPPING
                self.manager.world.note(self.name, trial.together, outcome, stopped=stopped)

    def end(self) -> None:
        """Do what run() does when no worker is left."""
        while not self._facts.empty():
            self._take(self._facts.get_nowait())
        self._traffic.close()
        self._clients.close()

    def owed(self) -> Iterable[Queue]:
        """The queues that it waits for until they are empty, or will when their lease is left."""
        beside = [lease for lease, weight in self.fleet.fed if not weight]
        for lease in beside:
            for listener in self._traffic._fed.get(lease, ()):
                yield from listener.unfinished(lease)
        yield from (queue for drain in self._traffic.drains() for queue in drain.queues())
        # Until an exchange is decided: it serves there again then, or leaves them to others.
        for lease, listeners in self._traffic._fed.items():
            for listener in listeners:
                if listener.listen.address in self._traffic._others:
                    yield from listener.unfinished(lease)
        listeners = self.manager.listeners.open_
        for address, lease in self.manager.services.owners.orphans:
            if listener := listeners.get(address):  # else it was closed since the last fact
                yield from listener.unfinished(lease)

    def fed(self) -> Iterable[tuple[int, Queue]]:
        """The leases that it thinks are fed, each with its queues."""
        known = self._traffic._fed
        weights = dict.fromkeys(known, 1) | dict(self.fleet.fed)
        for lease, listeners in _getting(weights, known).items():
            for listener in listeners:
                if listener.listen.address in self._traffic._others:
                    continue
                if lease < len(listener.queues) or not listener.is_steered:
                    yield lease, listener.queue(lease)

    def asked(self) -> set[int]:
        """The requests that have no verdict yet."""
        return set(self._verdicts._requests)

    def known(self) -> set[int]:
        """The requests of which somebody knows."""
        fleet, verdicts = self.fleet, self._verdicts
        waiting = (getattr(fact, "request", 0) for fact in self._facts.waiting)
        joined = (each for mine in verdicts._joined.values() for each in mine)
        trial = fleet.trial.requests if fleet.trial else ()
        return {*fleet.pending_requests, *trial, *joined, *verdicts._removals, *waiting}


__all__ = ["Answer", "Nothing", "Running", "ServiceShell", "Together", "ignore_progress"]
