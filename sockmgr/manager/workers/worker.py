"""A worker that runs: its process, its output, what it says of itself, and its end.

Owns the pidfd and the pipe. Decides nothing: it puts facts.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping

from sockmgr.api.figures import Figures
from sockmgr.api.records import EventKind
from sockmgr.api.types import WarmUp
from sockmgr.config.spec import Accept, Exec
from sockmgr.errors import SpawnError
from sockmgr.fleet.descendants import CRASH_TIME, Key, Orphans
from sockmgr.fleet.messages import SpawnFailed, Tick, WorkerExited, WorkerReady, WorkerStopping
from sockmgr.kernel.delegation import Group
from sockmgr.kernel.process import Process, has_no_reader
from sockmgr.kernel.spawn import Launch, spawn, uid_of
from sockmgr.log import Log
from sockmgr.manager.logs.output import LastWords, WorkerOutput
from sockmgr.manager.workers import readiness
from sockmgr.manager.workers.cgroups import out_of_memory
from sockmgr.manager.workers.context import Assignment
from sockmgr.manager.workers.exit import Exit
from sockmgr.manager.workers.inheritance import Inheritance, channel_for, memory_for
from sockmgr.manager.workers.life import NOBODY, NotMade, Requested, Running
from sockmgr.manager.workers.readiness import Sign, Watched
from sockmgr.manager.workers.ready_command import ReadyCommand
from sockmgr.manager.workers.survivor import CHANNEL, CHANNEL_OF_WORKER, OUTPUTS, PIDFD, Survivor
from sockmgr.manager.workers.template import Begin, Request, Template
from sockmgr.manager.workers.tree import Tree
from sockmgr.manager.workers.uptake import Uptake
from sockmgr.manager.workers.vigil import Vigil
from sockmgr.worker.moved import MOVED

log = Log("sockmgr")


class WorkerProcess:
    """One worker, made by spawned(), made_by() or adopted(); `close` it after its WorkerExited.

    It is requested from its template, or runs, or was not made. `ready`: it has been ready.
    `stopping`: it was sent its stop signal, or stops by itself. `warmed`: how its warm-up went.
    """

    def __init__(self, assignment: Assignment, survivor: Survivor | None = None) -> None:
        """Use spawned(), made_by() or adopted(). Raises SpawnError or ListenError."""
        command, listeners, context = assignment.command, assignment.listeners, assignment.context
        self.id, self.spec, self.lease = command.worker, command.spec, command.lease
        self.listeners, self._context, self._put = listeners, context, assignment.put
        self.warmed: WarmUp | None = None
        self._background = command.background
        # Asked for once: the accounts may be in a directory service, and each message needs it.
        self.user = uid_of(self.spec.user)
        self._state: Requested | Running | NotMade = NotMade()
        self.process = NOBODY  # the process that we started, once there is one
        self.started_at = survivor.since if survivor else context.loop.time()
        self.ready = survivor.was.ready if survivor else False
        self.stopping = survivor.was.told if survivor else False
        self.moved = 0  # connections that it gave to other workers, as it says at its end
        self._stopped_before: tuple[Key, ...] = survivor.was.told_others if survivor else ()
        # One that is passed connections takes none from a queue, so there is no uptake to see.
        self._uptake = Uptake(() if self.spec.accept is Accept.DISPATCH else listeners, self.lease)
        self._readiness = readiness.watch(self._watched(assignment))
        self._inheritance = Inheritance(assignment)
        with contextlib.ExitStack() as made:  # closes what is there already if the rest fails
            self.channel = channel_for(self.spec, survivor)
            if self.channel:
                made.callback(self.channel.close)
            self._inheritance.take(self.channel)
            self._memory = memory_for(self.spec, survivor, self._inheritance.next_number)
            if self._memory:
                made.callback(self._memory.close)
            self._vigil = Vigil(assignment, self._memory, lambda: self.process)
            self.output = context.output(self.name, survivor.outputs if survivor else ())
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
        worker._begin(survivor.process, worker._context.cgroups.of(survivor.process.pid))
        if survivor.was.heard:  # it will not say so again
            worker._readiness.check(Sign.SAYS_READY)
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
    def heard(self) -> bool:
        """Whether it has said READY=1, though it may have to prove itself as well."""
        return self._readiness.heard

    @property
    def found_wrong(self) -> str:
        """What the last probe of it found wrong, or nothing."""
        return self._vigil.seen if self.ready else self._readiness.seen

    @property
    def inodes(self) -> frozenset[int]:
        """The sockets that the worker was given."""
        return self._inheritance.inodes

    @property
    def descriptors(self) -> dict[str, int]:
        """What the next manager needs to own this worker, by what it is; borrowed."""
        # The pidfd above all: with it no other process can be taken for this one.
        found, both = {PIDFD: self.process.pidfd}, (self.output, self.output.stdout)
        found |= {role: one.fileno() for role, one in zip(OUTPUTS, both, strict=True) if one}
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
    def is_unheard(self) -> bool:
        """Whether it prints into a pipe that nobody has the other end of."""
        # To write there ends a program, by SIGPIPE, unless it ignores that.
        return any(has_no_reader(self.pid, number) for number in (1, 2))

    @property
    def figures(self) -> Figures:
        """What it has counted of its requests until now; nothing if it counts none."""
        return (self._memory and self._memory.figures()) or Figures()

    @property
    def is_detached(self) -> bool:
        """Whether a listener got a new socket since, on which this worker does not accept."""
        if self.spec.accept is Accept.DISPATCH:
            return False
        return self.inodes != {listener.inode(self.lease) for listener in self.listeners}

    def may_be(self, user: int) -> bool:
        """Tell whether a process of this worker can have this uid: root may take any."""
        return user in (0, os.geteuid(), self.user) or self.user == 0

    def notified(self, sender: int, fields: Mapping[str, str]) -> bool:
        """Take what a process of this worker said; return whether the next manager must know."""
        before = self.ready, self.stopping, self.heard
        if fields.get("READY") == "1":
            self._readiness.check(Sign.SAYS_READY)
        is_own = sender == self.pid  # a helper of the worker may stop, and inherits the variable
        if is_own and (moved := fields.get(MOVED, "")).isdecimal():
            self.moved = int(moved[:9])
        if is_own and fields.get("STOPPING") == "1" and self.ready and not self.stopping:
            self.stopping = True
            self._vigil.stop()
            self._uptake.look()
            self._put(WorkerStopping(worker=self.id, took=self._uptake.seen))
        if is_news := (self.ready, self.stopping, self.heard) != before:
            self._put(Tick())  # or it would not be among those whose records are written again
        return is_news

    def cannot_say(self) -> None:
        """Look whether it accepts: it may have been told to say it where nobody hears any more."""
        # One that is not made yet will be told an address that somebody hears.
        if not self.ready and self.pid:
            self._readiness.check(Sign.CANNOT_BE_HEARD)

    def takes(self) -> None:
        """Note that the worker takes the connections that are passed to it."""
        self._readiness.check(Sign.TAKES_CONNECTIONS)

    def drain(self) -> None:
        """Send the stop signal to the process we started; it stops its own, while it lives."""
        # Before anything can fail: what the worker does from now on is its end, and no crash.
        self._vigil.stop()
        self.stopping = True
        if isinstance(self._state, Requested):
            self._state.request.withdraw()
            self._not_made(0)
            return
        self._boot_is_over()
        if isinstance(self._state, Running):
            self._state.tree.remember()  # its parents may be gone when it is looked for
        self.process.signal(self.spec.stop_signal)

    def finish(self) -> None:
        """Send the stop signal once more: many programs, and our own runtime, then end at once."""
        self.process.signal(self.spec.stop_signal)

    def kill(self) -> None:
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
            case Running(tree=tree):
                words = self.output.last_words(why)
                oom = out_of_memory(tree.group, self.spec)
                return words.plus(oom) if oom else words
            case NotMade(words=words):
                return words

    def what_was_seen(self) -> str:
        """Say, for a worker that did not get ready, what was looked for and what was seen."""
        if isinstance(self._state, Requested):
            return "its template has not imported the application yet"
        if self.channel and self._context.dispatcher.is_missing:
            return "nobody asked it: the dispatcher ends again and again, or cannot be started"
        return self._readiness.describe()

    def close(self) -> None:
        """Let go of the process and the output; no fact is put any more."""
        self._readiness.close()
        if isinstance(self._state, Running):
            self._context.family.part_worker(self)
            self._state.close()
            self._context.cgroups.ended(self.name, self.spec, self._state.tree.group)
        self._vigil.stop()
        if self._memory:
            self._memory.close()
        self.output.close()

    # Private

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            # A dispatcher owns the channel of a worker that runs, but this one it has never seen.
            if self.channel:
                self.channel.close()
            raise

    def _watched(self, assignment: Assignment) -> Watched:
        return Watched(
            assignment=assignment,
            uptake=self._uptake,
            run_command=self._start_command,
            done=self._say_ready,
            warmed=self._note_warm_up,
            since=self.started_at,
        )

    def _note_warm_up(self, warmed: WarmUp) -> None:
        self.warmed = warmed

    def _begin(self, process: Process, group: Group | None) -> None:
        loop, owned = self._context.loop, self._inheritance.sockets
        patience = 0.0 if self.ready else self.spec.ready_timeout
        self.process = process
        self._state = Running(
            process=process,
            exit=Exit(process, self.output, loop, self._main_ended, self._ended),
            tree=Tree(self.name, process, loop, owned, self.user, self._context.family, group),
            priority=self._context.boots.begin(self.name, process.pid, patience, self._background),
        )
        self._context.family.join_worker(self)
        if not self.ready:
            self._readiness.start(self.pid, self.inodes)
        elif not self.stopping:
            self._vigil.start()

    def _start(self) -> None:
        try:
            process = Process(spawn(self._launch()))
        finally:
            # While we hold the worker's end of the pipe, its end would not be the end of the pipe.
            self.output.spawned()
        self._begin(process, self._context.cgroups.joined(self.name, self.spec, process.pid))

    def _request(self, template: Template) -> None:
        own = frozenset(name for name, _ in self.spec.slot_env)
        request = Request(launch=self._launch, made=self._made, failed=self._not_made, own=own)
        self._state = Requested(request=request, template=template)
        try:
            template.make(request, low=self._background, timeout=self.spec.ready_timeout)
        except BaseException:
            self.output.spawned()
            raise

    def _made(self, process: Process, begin: Begin) -> None:
        self._begin(process, self._context.cgroups.joined(self.name, self.spec, process.pid))
        log.info(EventKind.WORKER_STARTED, worker=self.name, pid=self.pid)
        # Only when the next manager could adopt it: one that has begun and is in no record is lost.
        begin()
        self.output.spawned()

    def _not_made(self, why: int | str) -> None:
        """Put the end of a worker without a process: a status of its template, or the obstacle."""
        was, self._state = self._state, NotMade()
        self.output.spawned()
        # A status counts as the worker's own end, so that what its template said is the reason.
        if isinstance(why, int):
            if isinstance(was, Requested):
                self._state = NotMade(words=was.template.words)
            self._put(WorkerExited(worker=self.id, status=why))
        else:
            log.error(EventKind.CANNOT_START_WORKER, worker=self.name, error=why)
            self._put(SpawnFailed(worker=self.id, error=why))

    def _launch(self) -> Launch:
        """Return how to start the worker: asked late, since a template takes its time."""
        if self.spec.accept is Accept.DISPATCH and self.channel is None:
            raise SpawnError(f"another worker has the lease of {self.name} by now")
        self._inheritance.take(self.channel)
        # Our runtime says there when it begins to end, however it is seen to be ready.
        says = self._readiness.needs_notify_socket or self.spec.has_figures
        notify = self._context.notify_address() if says else ""
        return self._inheritance.of_worker(self.output, notify, self._memory)

    def _start_command(
        self, command: Exec, executable: str, url: str, done: Callable[[], None]
    ) -> ReadyCommand:
        def start(output: WorkerOutput) -> Process:
            beside = self._inheritance.of_command(command, executable, output, self.pid, url)
            return Process(spawn(beside))

        return ReadyCommand(f"{self.name} ready?", self._context, start, done)

    def _say_ready(self) -> None:
        if not self.ready:
            self.ready = True
            self._boot_is_over()
            self._uptake.look()
            # Not before: an application that imports for long has nothing yet that could beat.
            self._vigil.start()
            self._put(WorkerReady(worker=self.id, draw=self.process.draw))

    def _boot_is_over(self) -> None:
        self._readiness.close()
        if isinstance(self._state, Running):
            self._state.priority.over()

    def _main_ended(self, status: int, alone: Callable[[], None]) -> None:
        """See to it that what it has started ends, too; it goes on until nobody is left."""
        self._readiness.close()
        self._uptake.look()  # the last chance: it may have served between two looks
        in_order = self.stopping or (self.ready and status in self.spec.clean_exits)
        # In request: the fleet has the deadline. After a crash nobody is to go on for long.
        deadline = math.inf if in_order else self._context.loop.time() + CRASH_TIME
        orphans = Orphans(self.spec.stop_signal, deadline, self._stopped_before)
        if isinstance(self._state, Running) and self._state.tree.end(orphans, alone):
            if in_order and not self.stopping:
                self.stopping = True
                self._vigil.stop()
                self._put(WorkerStopping(worker=self.id, took=self._uptake.seen))
            self._put(Tick())  # the next manager is not to tell them again

    def _ended(self, status: int) -> None:
        self._put(WorkerExited(worker=self.id, status=status, took=self._uptake.seen))
