"""The processes of one service: started, adopted, told to go and buried as its fleet says.

Owns them, what they are passed connections by, and what they leave behind. Decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Spec
from sockmgr.errors import ListenError, SpawnError
from sockmgr.fleet.generation import Worker
from sockmgr.fleet.messages import (
    Drain,
    Ending,
    Fact,
    Finish,
    Kill,
    Spawn,
    SpawnFailed,
    State,
    WorkerId,
)
from sockmgr.fleet.snapshot import ProcessSnapshot
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.log import Log
from sockmgr.manager.logs.output import LastWords
from sockmgr.manager.service.dispatching import Dispatching
from sockmgr.manager.service.lease_map import LeaseMap
from sockmgr.manager.workers import ports
from sockmgr.manager.workers.context import Assignment, WorkerContext
from sockmgr.manager.workers.strays import Strays
from sockmgr.manager.workers.survivor import Survivor
from sockmgr.manager.workers.template import Templates
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")

DRAIN_PACE = 0.1  # seconds between two stop signals, but all are sent within a second
LOST = "its manager died before it could be told of"
IN_USE = re.compile("EADDRINUSE|address already in use", re.IGNORECASE)
WENT_AWAY = (
    "it ended without a fault before it was ready: if it went into the background, tell it to stay "
    "in the foreground; if it ends with its standard input, which is /dev/null, to go on without"
)


class Processes:
    """All that run, by the id of each worker."""

    def __init__(
        self,
        name: str,
        context: WorkerContext,
        users: LeaseMap,
        put: Callable[[Fact], None],
        changed: Callable[[], None],
    ) -> None:
        """`put` takes the facts about them; `changed` is called when a template has made one."""
        self.running: dict[WorkerId, WorkerProcess] = {}
        self.killed = 0  # workers killed after they had been ready
        self.died = 0  # in the last drain: of a signal, or with a bad status
        self.dispatching = Dispatching(put)
        self._name, self._context, self._users, self._put = name, context, users, put
        self._strays = Strays(context.helpers)
        self._templates = Templates(name, context.loop, context.output, changed)
        self._last_words: dict[WorkerId, LastWords] = {}
        self._drain_at = 0.0

    @property
    def pids(self) -> set[int]:
        """The processes whose exit we hear of by ourselves."""
        workers = {pid for running in self.running.values() for pid in running.pids}
        return workers | self._templates.pids

    @property
    def written(self) -> Mapping[WorkerId, ProcessSnapshot]:
        """What adopt() needs of each beside its descriptors."""
        return {
            id: ProcessSnapshot(
                pid=running.pid,
                started=running.process.started,
                told=running.stopping,
                channel=running.ends,
                told_others=running.stopped_descendants,
            )
            for id, running in self.running.items()
            if running.pid
        }

    # --- Their beginning -----------------------------------------------------------------------

    def spawn(self, command: Spawn) -> bool:
        """Start one; return whether it could be, and if not put that."""
        try:
            OpenFiles.check()
            template = self._templates.of(command)
            make = partial(WorkerProcess.made_by, template) if template else WorkerProcess.spawned
            running = make(self._assignment(command))
        except (SpawnError, ListenError) as error:
            name = f"{self._name}@{command.worker}"
            log.error(EventKind.CANNOT_START_WORKER, worker=name, error=error.what)
            self._put(SpawnFailed(worker=command.worker, error=error.what))
            return False
        self.running[command.worker] = running
        self.dispatching.attach(running)
        if running.pid:
            log.info(EventKind.WORKER_STARTED, worker=running.name, pid=running.pid)
        return True

    def _assignment(self, command: Spawn) -> Assignment:
        return Assignment(
            command=command,
            listeners=self._users.of(command.spec),
            context=self._context,
            put=self._put,
        )

    def adopt(self, worker: Worker, spec: Spec, survivor: Survivor | None) -> None:
        """Go on with one of another manager's, if it lives."""
        command = Spawn(worker=worker.id, spec=spec, lease=worker.lease, background=False)
        if survivor is None and spec.preload and worker.state is State.STARTING:
            self.spawn(command)  # its template, which was to make it, ended with our predecessor
            return
        if survivor is None:
            self._put(SpawnFailed(worker=worker.id, error=LOST))
            return
        running = self.running[worker.id] = WorkerProcess.adopted(
            survivor, self._assignment(command)
        )
        self.dispatching.attach(running)
        log.info(EventKind.WORKER_ADOPTED, worker=running.name, pid=running.pid, state=worker.state)
        if worker.state is State.KILLED:
            running.kill()
        elif worker.state is State.DRAINING and not running.stopping:
            running.drain()
        elif worker.leaving:
            self.dispatching.abandon(running)

    # --- Their end -----------------------------------------------------------------------------

    def drain(self, command: Drain, *, at_once: bool) -> None:
        """Tell one to stop: `at_once`, or in its turn."""
        running = self.running.get(command.worker)
        if running is None:  # it could not be started, and its SpawnFailed is on the way
            return
        log.info("worker draining", worker=running.name, why=command.why)
        if at_once:
            running.drain()
            return
        # One after the other: a process that ends takes a burst of CPU from live traffic.
        loop = self._context.loop
        self._drain_at = max(loop.time(), self._drain_at)
        loop.call_at(self._drain_at, running.drain)
        self._drain_at += min(DRAIN_PACE, 1 / len(self.running))

    def kill(self, command: Kill) -> None:
        """Kill one, and remember what it said if it never served."""
        running = self.running.get(command.worker)
        if running is None:
            return
        if not running.ready:
            words = running.last_words(f"to be killed: {command.why}")
            self._last_words[running.id] = words.plus(running.what_was_seen())
        self.killed += running.ready
        log.warning(EventKind.WORKER_KILLED, worker=running.name, why=command.why)
        running.kill()

    def leave(self, id: WorkerId) -> None:
        """Know that this one stops by itself."""
        if running := self.running.get(id):
            log.info("worker stops by itself", worker=running.name, pid=running.pid)
            self.dispatching.abandon(running)

    def finish(self, command: Finish) -> None:
        """Tell one that drains to end now."""
        if running := self.running.get(command.worker):
            log.warning(EventKind.WORKER_TOLD_TO_FINISH_NOW, worker=running.name, why=command.why)
            running.finish()

    def bury(self, worker: Worker, status: int, *, recycled: bool) -> bool:
        """Let go of one that has ended, and end what it left behind; tell whether it ended well.

        `recycled`: it ended by itself, and it is no fault.
        """
        running = self.running.pop(worker.id)
        served = worker.served(self._context.loop.time())
        words = running.last_words("")
        if status == 0 and worker.state is State.STARTING:
            words = words.plus(WENT_AWAY)
        if worker.state is State.STARTING and any(map(IN_USE.search, words.lines)):
            words = self._with_who_has_the_port(words)
        self._last_words.setdefault(worker.id, words)
        running.close()
        self.dispatching.detach(running)
        expected = worker.state in (State.DRAINING, State.KILLED)
        clean = worker.state is State.DRAINING and status in running.spec.clean_exits
        died = bool(served) and worker.state is State.DRAINING and not clean
        self.died += died
        tell = log.warning if died else log.info if expected or recycled else log.error
        how = Ending(status=status, recycled=recycled, clean=clean)
        tell(EventKind.WORKER_ENDED, worker=running.name, pid=running.pid, was=worker.state,
             how=how, served=served)  # fmt: skip
        self._strays.add(running.inodes, running.name)
        self._strays.end(self._used)
        return not died

    def forget(self, id: WorkerId) -> None:
        """Let go of one that could not be started after all."""
        if unmade := self.running.pop(id, None):
            unmade.close()
            self.dispatching.detach(unmade)

    def end_strays(self) -> None:
        """Look again for orphans: one that was forked as its parent died is our child only now."""
        self._strays.end_and_forget(self._used)

    def keep_templates_of(self, generations: Collection[int]) -> None:
        """End the templates of all others."""
        self._templates.end_all_but(generations)

    # --- What they said last -------------------------------------------------------------------

    def words_of(self, id: WorkerId) -> LastWords:
        """Return the last words of one, ended or not."""
        if (words := self._last_words.get(id)) is not None:
            return words
        running = self.running.get(id)
        return running.last_words("taken back") if running else LastWords()

    def forget_words(self) -> None:
        """Remember no last words: the rollout that they were about has its verdict."""
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
