"""The processes of one service: started, adopted, stopped and buried as its fleet says.

Owns the processes, their dispatcher, and what they leave behind. Decides nothing.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.api.types import WarmUp
from sockmgr.config.hooks import Moment
from sockmgr.config.spec import Accept, Spec
from sockmgr.errors import ListenError, SpawnError
from sockmgr.fleet.endings import Ending
from sockmgr.fleet.generation import Generation, Worker
from sockmgr.fleet.messages import (
    Drain,
    Fact,
    Finish,
    Kill,
    Spawn,
    SpawnFailed,
    State,
    WorkerId,
    WorkerReady,
)
from sockmgr.fleet.records import FleetRecords
from sockmgr.fleet.snapshot import ProcessSnapshot
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.service.comparing import Comparing
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.service.figures import ServiceFigures
from sockmgr.manager.service.lease_map import LeaseMap
from sockmgr.manager.service.own_metrics import OwnMetrics
from sockmgr.manager.service.tellings import Tellings
from sockmgr.manager.service.upkeep import Upkeep
from sockmgr.manager.workers import ports
from sockmgr.manager.workers.context import Assignment, WorkerContext
from sockmgr.manager.workers.moves import Moves
from sockmgr.manager.workers.private_socket import PrivateSockets
from sockmgr.manager.workers.stop_turns import StopTurns, Turn
from sockmgr.manager.workers.strays import Strays
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.manager.workers.template import Template, Templates
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")

# Why a worker of another manager counts as one that could not be started.
LOST = "its manager died before it could be told of"
IN_USE = re.compile("EADDRINUSE|address already in use", re.IGNORECASE)
WENT_AWAY = (
    "it ended without a fault before it was ready: if it went into the background, tell it to stay "
    "in the foreground; if it ends with its standard input, which is /dev/null, to go on without"
)


class Processes:
    """The processes that run, by the id of each worker."""

    def __init__(
        self,
        name: str,
        context: WorkerContext,
        lease_map: LeaseMap,
        put: Callable[[Fact], None],
        upkeep: Upkeep,
        fleet: Callable[[], FleetRecords],
    ) -> None:
        """`put` takes facts about workers, `fleet` returns what knows them."""
        self.running: dict[WorkerId, WorkerProcess] = {}
        self.moved = 0  # connections that workers gave to others at their end
        self.fresh: set[WorkerId] = set()  # started, and no next manager would know of them yet
        self.changed: set[WorkerId] = set()  # something about them may be to be saved
        self.killed = 0  # workers killed after they had been ready
        self.died = 0  # in the last drain: of a signal, or with a bad status
        self.dispatching = Dispatching(name, context.dispatcher, put)
        self.moves = Moves(name)
        self.figures = ServiceFigures(self.running)
        self.comparing = Comparing(self.figures)
        self.tellings = Tellings(name, context)
        self._name, self._context, self._lease_map, self._put = name, context, lease_map, put
        self._strays = Strays(context.loop, context.family, lambda: self._used)
        template = partial(
            Template, loop=context.loop, output=context.output, boots=context.boots,
            family=context.family, changed=self._made_one,
        )  # fmt: skip
        self.templates = Templates(name, template)
        self.private = PrivateSockets(name, lambda: self._own_path().parent)
        self.metrics = OwnMetrics(name, context, self._own_path)
        self._asked_for: set[WorkerId] = set()  # of templates, which have not made them yet
        self._upkeep, self._fleet = upkeep, fleet
        self._last_words: dict[WorkerId, LastWords] = {}
        self._turns = StopTurns(context.loop, context.slices)
        self._is_sick = False

    def newest(self, number: int) -> list[int]:
        """Return the pids of so many workers, those that were started last."""
        pids = (running.pid for running in reversed(self.running.values()))
        return list(itertools.islice(filter(None, pids), number))

    # --- Their beginning -----------------------------------------------------------------------

    def spawn(self, command: Spawn) -> bool:
        """Start a worker; if it cannot be started, put SpawnFailed and return False."""
        try:
            # A worker that took the last descriptors would leave none to answer clients with.
            OpenFiles.check()
            self.private.make(command, self._lease_map.of(command.spec))
            template = self.templates.of(command)
            make = partial(WorkerProcess.made_by, template) if template else WorkerProcess.spawned
            running = make(self._assignment(command, self.metrics.directory(command.spec)))
        except (SpawnError, ListenError) as error:
            name = f"{self._name}@{command.worker}"
            log.error(EventKind.CANNOT_START_WORKER, worker=name, error=error.what)
            self._put(SpawnFailed(worker=command.worker, error=error.what))
            return False
        self.running[command.worker] = running
        self.dispatching.attach(running, self.moves.of(command.spec))
        if template:
            self._asked_for.add(command.worker)
        self.fresh.add(command.worker)
        self.changed.add(command.worker)
        if running.pid:  # one that a template makes has none yet, and is logged when it has
            log.info(EventKind.WORKER_STARTED, worker=running.name, pid=running.pid)
        return True

    def _made_one(self) -> None:
        """Have it saved before it is told to begin."""
        running = self.running
        made = {n for n in self._asked_for if n not in running or running[n].pid}
        self._asked_for -= made
        self.fresh |= made
        self.changed |= made
        self._upkeep.spawned(self._name)
        self._upkeep.soon()

    def _assignment(self, command: Spawn, metrics: str = "") -> Assignment:
        private = self.private.of(command.worker)
        return Assignment(
            command=command,
            listeners=self._lease_map.of(command.spec),
            context=self._context,
            put=partial(self._hear, command.worker),
            reach=partial(self._reach, command),
            # Nobody else can answer on a private socket, and no client stands there.
            asks=lambda: bool(private) or self._fleet().asks(command.worker),
            is_fed=lambda: command.lease in dict(self._fleet().fed),
            moves=self.moves.of(command.spec),
            private=private,
            metrics=metrics,
        )

    def _own_path(self) -> Path:
        path = Path(self._context.notify_address())
        if not path.is_absolute():  # an abstract name, as the directory is gone
            raise SpawnError("the directory of the manager's own sockets is gone")
        return path

    async def _reach(self, command: Spawn, listener: Listener) -> socket.socket:
        if command.spec.accept is Accept.DISPATCH:
            return await self.dispatching.reach(command.lease, listener)
        private = self.private.of(command.worker)
        if private and listener.why_unreachable:
            return await private.connect()
        return await listener.reach(command.lease)

    def _hear(self, id: WorkerId, fact: Fact) -> None:
        # Whatever a worker has to say may come with a change of what is saved of its process.
        self.changed.add(id)
        self._put(fact)

    def adopt(self, worker: Worker, spec: Spec, survivor: Survivor | None) -> None:
        """Own a worker that another manager started, if it still lives."""
        command = Spawn(worker=worker.id, spec=spec, lease=worker.lease, background=False)
        if worker.state is State.STARTING:
            self.private.find(command, self._lease_map.of(spec))
        if survivor is None and spec.preload and worker.state is State.STARTING:
            self.spawn(command)  # its template, which was to make it, ended with our predecessor
            return
        if survivor is None:
            self.metrics.merge(spec)
            self._put(SpawnFailed(worker=worker.id, error=LOST))
            return
        self.changed.add(worker.id)
        running = self.running[worker.id] = WorkerProcess.adopted(
            survivor, self._assignment(command)
        )
        self.dispatching.attach(running, self.moves.of(spec))
        log.info(EventKind.WORKER_ADOPTED, worker=running.name, pid=running.pid, state=worker.state)
        # A stop signal may still have waited for its turn (StopTurns): the state says whether it
        # was sent. A second KILL does no harm.
        if worker.state is State.STARTING and running.ready:  # heard before us, and no more
            self._put(WorkerReady(worker=worker.id, draw=running.process.draw))
        if worker.state is State.KILLED:
            running.kill()
        elif worker.state is State.DRAINING and not running.stopping:
            running.drain()
        elif worker.leaving:
            self.dispatching.abandon(running)

    def see_ready(self, id: WorkerId, now: float) -> WarmUp | None:
        """Log that a worker is ready, and how long that took; return how it was warmed up."""
        self.private.drop(id)
        running = self.running.get(id)
        if running is None:
            return None
        took = now - running.started_at
        log.info(EventKind.WORKER_READY, worker=running.name, pid=running.pid, took=took)
        return running.warmed

    def see_health(self, current: Generation | None) -> None:
        """Log when every worker that serves fails its probes."""
        is_sick, self._is_sick = self._is_sick, bool(current and current.sick)
        if self._is_sick and not is_sick:
            log.error(EventKind.NO_WORKER_IS_HEALTHY, service=self._name,
                      means="one is replaced; if that helps, the others are as well")  # fmt: skip

    # --- Their end -----------------------------------------------------------------------------

    def drain(self, command: Drain, *, at_once: bool) -> None:
        """Send a worker its stop signal: `at_once`, or in its turn."""
        running = self.running.get(command.worker)
        if running is None:  # it could not be started, and its SpawnFailed is on the way
            return
        # A worker that was never ready has no clients.
        listeners = running.listeners if running.ready else ()
        turn = Turn(
            tell=partial(self._tell_to_stop, running, command.why), at_once=at_once,
            listeners=tuple(each for each in listeners if each.has_handshakes),
        )  # fmt: skip
        self._turns.add(turn, of=len(self.running))

    def _tell_to_stop(self, running: WorkerProcess, why: str) -> None:
        if self.running.get(running.id) is running:  # it has not ended meanwhile
            log.info("worker draining", worker=running.name, why=why)
            running.drain()
            self.changed.add(running.id)
            self._upkeep.soon()

    def kill(self, command: Kill) -> None:
        """Kill a worker, and remember its last words if it never served."""
        running = self.running.get(command.worker)
        if running is None:
            return
        if not running.ready:
            # The words are read while the worker lives: where it hangs can still be seen, and the
            # verdict may be due before it has ended.
            words = running.last_words(f"to be killed: {command.why}")
            seen = running.found_wrong
            told = replace(words, seen=seen) if seen else words.plus(running.what_was_seen())
            self._last_words[running.id] = told
        self.killed += running.ready
        log.warning(EventKind.WORKER_KILLED, worker=running.name, why=command.why)
        running.kill()

    def kill_unready(self, generation: int) -> None:
        for id, running in self.running.items():
            if id.generation == generation and not running.ready:
                running.kill()

    def leave(self, id: WorkerId) -> None:
        """Pass no more connections to a worker that stops by itself."""
        if running := self.running.get(id):
            log.info("worker stops by itself", worker=running.name, pid=running.pid)
            self.dispatching.abandon(running)

    def finish(self, command: Finish) -> None:
        """Have a worker that drains end now."""
        if running := self.running.get(command.worker):
            log.warning(EventKind.WORKER_TOLD_TO_FINISH_NOW, worker=running.name, why=command.why)
            running.finish()

    def bury(self, worker: Worker, status: int, *, recycled: bool) -> bool:
        """Let go of a worker that has ended, and of what it left; return whether it ended well.

        `recycled`: the worker ended by itself when its work was done, which is no fault.
        """
        running = self.running.pop(worker.id)
        self.changed.add(worker.id)
        self.private.drop(worker.id)
        served = worker.served(self._context.loop.time())
        words = running.last_words("")
        # A server that prints nothing and ends with 0, or that finds its port taken, leaves no hint
        # of what is wrong with the config: both are common when a command comes from elsewhere.
        if status == 0 and worker.state is State.STARTING:
            words = words.plus(WENT_AWAY)
        if worker.state is State.STARTING and any(map(IN_USE.search, words.lines)):
            words = self._with_who_has_the_port(words)
        # Words that were recorded before a kill say more than those found after the death.
        self._last_words.setdefault(worker.id, words)
        self.figures.bury(running)
        self.metrics.merge(running.spec)
        running.close()
        self.dispatching.detach(running)
        expected = worker.state in (State.DRAINING, State.KILLED)
        clean = worker.state is State.DRAINING and status in running.spec.clean_exits
        died = bool(served) and worker.state is State.DRAINING and not clean
        self.died += died
        self.moved += running.moved
        tell = log.warning if died else log.info if expected or recycled else log.error
        how = Ending(status=status, recycled=recycled, clean=clean)
        tell(EventKind.WORKER_ENDED, worker=running.name, pid=running.pid, was=worker.state,
             how=how, served=served)  # fmt: skip
        self.tellings.tell(
            running.spec, worker.id.generation, Moment.WORKER_ENDED, worker=running.name,
            slot=worker.id.slot, pid=running.pid, reason=how,
        )  # fmt: skip
        # Processes that the worker left behind would go on taking connections from its queue.
        self._strays.add(running.inodes, running.name)
        return not died

    def forget(self, id: WorkerId) -> None:
        """Let go of a worker that its template could not make."""
        self.private.drop(id)
        if unmade := self.running.pop(id, None):
            self.changed.add(id)
            unmade.close()
            self.dispatching.detach(unmade)

    def end_strays(self) -> None:
        """Look again for orphans: a process whose parent has just died is our child only now."""
        self._strays.end_and_forget()

    def keep_moves(self, takers: Iterable[Spec]) -> None:
        """End the move queues from which nobody takes any more: see Moves.keep()."""
        if self.moves.keep(takers):
            self.dispatching.keep_queues(self.moves.inodes)

    def close(self) -> None:
        """End what serves the workers, as the last of them has ended."""
        self.templates.end_all_but(())
        self.tellings.close()
        self.metrics.close()

    # --- What they said last -------------------------------------------------------------------

    def words_of(self, id: WorkerId) -> LastWords:
        """Return the last words of a worker, whether it has ended or not."""
        if (words := self._last_words.get(id)) is not None:
            return words
        running = self.running.get(id)
        return running.last_words("taken back") if running else LastWords()

    def forget_words(self) -> None:
        """Forget all last words: the rollout that needed them has its verdict."""
        self._last_words.clear()

    def _with_who_has_the_port(self, words: LastWords) -> LastWords:
        for running in self.running.values():
            if own := " and ".join(ports.opened_by(running.pid, running.inodes)):
                return words.plus(
                    f"{running.name} listens on {own}, which it opened itself, so no other worker "
                    "can: make that a listener of the config, or let the kernel choose its port"
                )
        return words

    @property
    def _used(self) -> set[int]:
        return {inode for running in self.running.values() for inode in running.inodes}


def written(running: WorkerProcess) -> ProcessSnapshot:
    """Return what adopt() needs of a worker beside its descriptors."""
    return ProcessSnapshot(
        pid=running.pid,
        started=running.process.started,
        told=running.stopping,
        ready=running.ready,
        heard=running.heard,
        channel=running.ends,
        told_others=running.stopped_descendants,
    )
