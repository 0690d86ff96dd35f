"""A worker that runs: its process, its output, what it says of itself, and its end.

Owns the pidfd and the pipe. Decides nothing: it puts facts.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Accept, Exec
from sockmgr.errors import SpawnError
from sockmgr.fleet.descendants import CRASH_TIME, Key, Orphans
from sockmgr.fleet.messages import (
    Hung,
    SpawnFailed,
    Tick,
    WorkerExited,
    WorkerReady,
    WorkerStopping,
)
from sockmgr.kernel.connections import to_addresses
from sockmgr.kernel.heartbeat import Beat, HeartbeatMemory
from sockmgr.kernel.process import Process
from sockmgr.kernel.spawn import Launch, spawn, user_number
from sockmgr.log import Log
from sockmgr.manager.logs.output import LastWords, WorkerOutput
from sockmgr.manager.workers import readiness
from sockmgr.manager.workers.boot_priority import BootPriority
from sockmgr.manager.workers.context import Assignment
from sockmgr.manager.workers.exit import Exit
from sockmgr.manager.workers.inheritance import Inheritance, channel_for
from sockmgr.manager.workers.life import NOBODY, NotMade, Requested, Running
from sockmgr.manager.workers.readiness import Sign, Watched
from sockmgr.manager.workers.ready_command import ReadyCommand
from sockmgr.manager.workers.survivor import CHANNEL, CHANNEL_OF_WORKER, OUTPUT, PIDFD, Survivor
from sockmgr.manager.workers.template import Begin, Request, Template
from sockmgr.manager.workers.tree import Tree
from sockmgr.manager.workers.uptake import Uptake
from sockmgr.manager.workers.watchdog import Watchdog

log = Log("sockmgr")


class WorkerProcess:
    """One worker, made by spawned(), made_by() or adopted(); `close` it after its WorkerExited.

    It is requested from its template, or runs, or was not made. `ready`: it has been ready.
    `stopping`: it was sent its stop signal, or stops by itself.
    """

    def __init__(self, assignment: Assignment, survivor: Survivor | None = None) -> None:
        """Use spawned(), made_by() or adopted(). Raises SpawnError or ListenError."""
        command, listeners, context = assignment.command, assignment.listeners, assignment.context
        self.id, self.spec, self.lease = command.worker, command.spec, command.lease
        self._listeners, self._context, self._put = listeners, context, assignment.put
        self._low = command.background and context.can_restore_priority
        self._user = user_number(self.spec.user)
        self._state: Requested | Running | NotMade = NotMade()
        self.started_at = survivor.since if survivor else context.loop.time()
        self.ready = survivor.ready if survivor else False
        self.stopping = survivor.told if survivor else False
        self._stopped_before: tuple[Key, ...] = survivor.told_others if survivor else ()
        accepts = self.spec.accept is not Accept.DISPATCH
        self._uptake = Uptake(listeners if accepts else (), self.lease)
        self._readiness = readiness.watch(self._watched())
        self._inheritance = Inheritance(self.spec, listeners, self.lease)
        with contextlib.ExitStack() as made:  # closes what is there already if the rest fails
            self.channel = channel_for(self.spec, survivor)
            if self.channel:
                made.callback(self.channel.close)
            self._inheritance.take(self.channel)
            self._watchdog = self._find_watchdog(survivor)
            if self._watchdog:
                made.callback(self._watchdog.close)
            self.output = context.output(self.name, survivor.output if survivor else None)
            made.pop_all()

    @classmethod
    def spawned(cls, assignment: Assignment) -> WorkerProcess:
        """Start a process of its own. Raises SpawnError or ListenError."""
        worker = cls(assignment)
        with worker._closed_on_error():
            worker._start()
        return worker

    @classmethod
    def made_by(cls, template: Template, assignment: Assignment) -> WorkerProcess:
        """Have `template` make the process, later. Raises SpawnError or ListenError."""
        worker = cls(assignment)
        with worker._closed_on_error():
            worker._request(template)
        return worker

    @classmethod
    def adopted(cls, survivor: Survivor, assignment: Assignment) -> WorkerProcess:
        """Own the process that an earlier manager started, and its descriptors."""
        worker = cls(assignment, survivor)
        worker._begin(survivor.process)
        return worker

    @property
    def name(self) -> str:
        """`web@7.2`."""
        return f"{self.spec.service}@{self.id}"

    @property
    def pid(self) -> int:
        """The pid of the process we started; 0 for as long as its template has not made it."""
        return self.process.pid

    @property
    def process(self) -> Process:
        """The process that we started; one with pid 0 for as long as there is none."""
        return self._state.process if isinstance(self._state, Running) else NOBODY

    @property
    def inodes(self) -> frozenset[int]:
        """The sockets that the worker was given."""
        return self._inheritance.inodes

    @property
    def descriptors(self) -> dict[str, int]:
        """What the next manager needs to own this worker, by what it is; borrowed."""
        found = {PIDFD: self.process.pidfd, OUTPUT: self.output.fileno()}
        if self.channel:
            found |= {CHANNEL: self.channel.fileno(), CHANNEL_OF_WORKER: self.channel.theirs}
        return {role: fd for role, fd in found.items() if fd >= 0}

    @property
    def ends(self) -> tuple[int, ...]:
        """The inodes of its channel, ours first, by which the next manager tells them apart."""
        if self.channel is None:
            return ()
        return tuple(os.fstat(fd).st_ino for fd in (self.channel.fileno(), self.channel.theirs))

    @property
    def stopped_descendants(self) -> tuple[Key, ...]:
        """The descendants that had the stop signal, as the process that we started has ended."""
        return self._state.tree.told if isinstance(self._state, Running) else ()

    @property
    def pids(self) -> set[int]:
        """The processes whose exit is told here."""
        return {self.pid, self._readiness.pid} - {0}

    @property
    def is_unheard(self) -> bool:
        """Whether it prints into a pipe that nobody has the other end of."""
        if self.output.fileno() >= 0:
            return False
        try:
            return Path(f"/proc/{self.pid}/fd/1").readlink().name.startswith("pipe:")
        except OSError:
            return False

    @property
    def is_detached(self) -> bool:
        """Whether a listener got a new socket since, on which this worker does not accept."""
        if self.spec.accept is Accept.DISPATCH:
            return False
        return self.inodes != {listener.inode(self.lease) for listener in self._listeners}

    def may_be(self, user: int) -> bool:
        """Tell whether a process of this worker can have this uid: root may take any."""
        return user in (0, os.geteuid(), self._user) or self._user == 0

    def notified(self, sender: int, fields: Mapping[str, str]) -> None:
        """Take a message that one of this worker's processes sent to NOTIFY_SOCKET."""
        if fields.get("READY") == "1":
            self._readiness.check(Sign.SAYS_READY)
        # A helper of the worker may stop, and inherits the variable.
        if (
            fields.get("STOPPING") == "1"
            and sender == self.pid
            and self.ready
            and not self.stopping
        ):
            self.stopping = True
            self._calm()
            self._uptake.look()
            self._put(WorkerStopping(worker=self.id, took=self._uptake.seen))

    def cannot_say(self) -> None:
        """Look whether it accepts: it may have been told to say it where nobody hears any more."""
        if not self.ready and self.pid:
            self._readiness.check(Sign.CANNOT_BE_HEARD)

    def takes(self) -> None:
        """Note that the worker takes the connections that are passed to it."""
        self._readiness.check(Sign.TAKES_CONNECTIONS)

    def drain(self) -> None:
        """Send the stop signal to the process we started; it stops its own, while it lives."""
        self._calm()
        self.stopping = True
        if isinstance(self._state, Requested):
            self._state.request.withdraw()
            self._not_made(0)
            return
        self._boot_is_over()
        if isinstance(self._state, Running):
            self._state.tree.remember()
        self.process.signal(self.spec.stop_signal)

    def finish(self) -> None:
        """Send the stop signal once more: many programs, and our own runtime, then end at once."""
        self.process.signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Kill the whole process tree."""
        match self._state:
            case Requested(template=template):  # it is the template that hangs: its end is ours
                template.kill()
            case Running(tree=tree):
                tree.kill()

    def last_words(self, why: str) -> LastWords:
        """Return what the worker said last, or its template, when we look because of `why`."""
        match self._state:
            case Requested(template=template):
                return template.last_words(why)
            case Running():
                return self.output.last_words(why)
            case NotMade(words=words):
                return words

    def what_was_seen(self) -> str:
        """Say, for a worker that did not get ready, what was looked for and what was seen."""
        if isinstance(self._state, Requested):
            return "its template has not imported the application yet"
        return self._readiness.describe()

    def close(self) -> None:
        """Let go of the process and the output; no fact is put any more."""
        self._readiness.close()
        if isinstance(self._state, Running):
            self._state.close()
        if self._watchdog:
            self._watchdog.close()
        self.output.close()

    # Private

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            if self.channel:
                self.channel.close()
            raise

    def _watched(self) -> Watched:
        return Watched(
            spec=self.spec,
            listeners=self._listeners,
            loop=self._context.loop,
            memory=self._context.memory,
            uptake=self._uptake,
            run_command=self._start_command,
            done=self._say_ready,
        )

    def _begin(self, process: Process) -> None:
        loop = self._context.loop
        self._state = Running(
            process=process,
            exit=Exit(process, self.output, loop, self._main_ended, self._ended),
            tree=Tree(self.name, process, loop, self._sockets, self._user),
            priority=BootPriority(self.name, process.pid, loop, low=self._low),
        )
        if not self.ready:
            self._readiness.start(self.pid, self.inodes)
        elif self._watchdog and not self.stopping:
            self._watchdog.start()

    def _start(self) -> None:
        try:
            process = Process(spawn(self._launch()))
        finally:
            self.output.spawned()
        self._begin(process)

    def _request(self, template: Template) -> None:
        request = Request(launch=self._launch, made=self._made, failed=self._not_made)
        self._state = Requested(request=request, template=template)
        try:
            template.make(request, low=self._low)
        except BaseException:
            self.output.spawned()
            raise

    def _made(self, process: Process, begin: Begin) -> None:
        self._begin(process)
        log.info(EventKind.WORKER_STARTED, worker=self.name, pid=self.pid)
        begin()
        self.output.spawned()

    def _not_made(self, why: int | str) -> None:
        """Put the end of a worker without a process: a status of its template, or the obstacle."""
        was, self._state = self._state, NotMade()
        self.output.spawned()
        if isinstance(why, int):
            if isinstance(was, Requested):
                self._state = NotMade(words=was.template.words)
            self._put(WorkerExited(worker=self.id, status=why))
        else:
            log.error(EventKind.CANNOT_START_WORKER, worker=self.name, error=why)
            self._put(SpawnFailed(worker=self.id, error=why))

    def _find_watchdog(self, survivor: Survivor | None) -> Watchdog | None:
        """Return what watches the heartbeat, if it is to be watched and has a memory."""
        limit = self.spec.hang_timeout
        if not limit:
            return None
        number = self._inheritance.next_number
        pid = survivor.process.pid if survivor else 0
        memory = HeartbeatMemory.of(pid, number) if pid else HeartbeatMemory.create()
        if memory is None:
            return None
        return Watchdog(self.name, limit, memory, self._context.loop, self._on_hang)

    def _on_hang(self, beat: Beat, silent: float) -> None:
        log.error(EventKind.WORKER_HANGS, worker=self.name, pid=self.pid, silent=silent)
        # Only what said so itself prints its stacks on that signal; others would die of it.
        if beat.stacks_signal and beat.pid == self.pid:
            self.process.signal(beat.stacks_signal)
        limit = self.spec.hang_timeout or 0.0
        self._put(Hung(worker=self.id, why=f"hung: no sign of life for {limit:g} s"))

    def _launch(self) -> Launch:
        """Return how to start the worker: asked late, since a template takes its time."""
        if self.spec.accept is Accept.DISPATCH and self.channel is None:
            raise SpawnError(f"another worker has the lease of {self.name} by now")
        self._inheritance.take(self.channel)
        notify = self._context.notify_address() if self._readiness.needs_notify_socket else ""
        memory = self._watchdog.memory if self._watchdog else None
        return self._inheritance.of_worker(self.output, notify, memory)

    def _start_command(self, command: Exec, executable: str) -> ReadyCommand:
        def start(output: WorkerOutput) -> Process:
            return Process(
                spawn(self._inheritance.of_command(command, executable, output, self.pid))
            )

        name, context = f"{self.name} ready?", self._context
        return ReadyCommand(name, context.sink, context.loop, start, self._say_ready)

    def _say_ready(self) -> None:
        if not self.ready:
            self.ready = True
            self._boot_is_over()
            self._uptake.look()
            if self._watchdog:
                self._watchdog.start()
            self._put(WorkerReady(worker=self.id))

    def _calm(self) -> None:
        """Expect no heartbeat: an application that shuts down may block."""
        if self._watchdog:
            self._watchdog.stop()

    def _boot_is_over(self) -> None:
        self._readiness.close()
        if isinstance(self._state, Running):
            self._state.priority.over()

    def _main_ended(self, status: int, alone: Callable[[], None]) -> None:
        """See to it that what it has started ends, too; it goes on until nobody is left."""
        self._readiness.close()
        self._uptake.look()
        in_order = self.stopping or (self.ready and status in self.spec.clean_exits)
        # In request: the fleet has the deadline. After a crash nobody is to go on for long.
        deadline = math.inf if in_order else self._context.loop.time() + CRASH_TIME
        orphans = Orphans(self.spec.stop_signal, deadline, self._stopped_before)
        if isinstance(self._state, Running) and self._state.tree.end(orphans, alone):
            if in_order and not self.stopping:
                self.stopping = True
                self._calm()
                self._put(WorkerStopping(worker=self.id, took=self._uptake.seen))
            self._put(Tick())  # the next manager is not to tell them again

    def _sockets(self) -> frozenset[int] | None:
        """Return what is ours: listeners, channel, connections; None where that cannot be told."""
        if not self.spec.listen:
            return None
        try:
            return self.inodes | to_addresses(each.address for each in self._listeners)
        except OSError:  # sock_diag(7) is refused
            return None

    def _ended(self, status: int) -> None:
        self._put(WorkerExited(worker=self.id, status=status, took=self._uptake.seen))
