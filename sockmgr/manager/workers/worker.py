"""A worker that runs: its process, its output, what it says of itself, and its end.

Owns the pidfd and the pipe. Decides nothing: it puts facts.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.config import announcement
from sockmgr.config.placeholder import FIRST_FD
from sockmgr.config.spec import Accept, Exec
from sockmgr.errors import SpawnError
from sockmgr.fleet.descendants import CRASH_TIME, Key, Orphans
from sockmgr.fleet.messages import (
    Fact,
    Hung,
    Spawn,
    SpawnFailed,
    Tick,
    WorkerExited,
    WorkerReady,
    WorkerStopping,
)
from sockmgr.kernel import heartbeat
from sockmgr.kernel.connections import to_addresses
from sockmgr.kernel.heartbeat import Beat, HeartbeatMemory
from sockmgr.kernel.process import Process
from sockmgr.kernel.spawn import Launch, spawn, user_number
from sockmgr.log import Log
from sockmgr.manager.dispatch.channel import Channel
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.logs.output import LastWords, WorkerOutput
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers import readiness
from sockmgr.manager.workers.boot_priority import BootPriority
from sockmgr.manager.workers.exit import Exit
from sockmgr.manager.workers.memory_reader import MemoryReader
from sockmgr.manager.workers.readiness import Sign, Watched
from sockmgr.manager.workers.ready_command import ReadyCommand
from sockmgr.manager.workers.survivor import CHANNEL, CHANNEL_OF_WORKER, OUTPUT, PIDFD, Survivor
from sockmgr.manager.workers.template import Order, Orders, Template
from sockmgr.manager.workers.tree import Tree
from sockmgr.manager.workers.uptake import Uptake
from sockmgr.manager.workers.watchdog import Watchdog

NOBODY = Process(0, pidfd=-1)  # of a worker that its template has not made yet

log = Log("sockmgr")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What a running worker needs from the manager."""

    loop: asyncio.AbstractEventLoop
    sink: Sink
    output: Callable[[str, int | None], WorkerOutput]  # by name, and what was found of it
    notify_address: Callable[[], str]
    can_restore_priority: bool
    helpers: Callable[[], Collection[int]]  # pids of our own that are nobody's workers
    memory: MemoryReader = field(default_factory=MemoryReader)


class WorkerProcess:
    """One worker. `close` when its exit has been told."""

    def __init__(
        self,
        command: Spawn,
        listeners: Sequence[Listener],
        context: WorkerContext,
        put: Callable[[Fact], None],
        survivor: Survivor | None = None,
        template: Template | None = None,
    ) -> None:
        """Start the worker, have `template` make it, or own a survivor.

        Raises SpawnError or ListenError.
        """
        self.id, self.spec, self.lease = command.worker, command.spec, command.lease
        self._listeners, self._context, self._put = listeners, context, put
        self._template, self._words = template, LastWords()
        self._low = command.background and context.can_restore_priority
        self.channel = self._find_channel(survivor)
        self._take_leases()
        self._addresses = {
            listen.name: listener.address
            for listen, listener in zip(self.spec.listen, listeners, strict=True)
        }
        self._user = user_number(self.spec.user)
        self.ready = self.told = False
        own = self.spec.accept is not Accept.DISPATCH  # it accepts itself
        self._uptake = Uptake(listeners if own else (), self.lease)
        self._readiness = readiness.watch(
            Watched(
                spec=self.spec,
                listeners=listeners,
                loop=context.loop,
                memory=context.memory,
                uptake=self._uptake,
                run_command=self._start_command,
                done=self._say_ready,
            )
        )
        self._order: Order | None = None
        self._priority: BootPriority | None = None
        self._exit: Exit | None = None
        self._tree: Tree | None = None
        self._watchdog = self._find_pulse(survivor)
        self._told_before: tuple[Key, ...] = ()
        self.process = NOBODY
        if survivor:
            self.started_at, self.ready, self.told = survivor.since, survivor.ready, survivor.told
            self._told_before = survivor.told_others
            self.output = context.output(self.name, survivor.output)
            self._begin(survivor.process)
            return
        self.started_at = context.loop.time()
        self.output = self._open_output()
        try:
            if template:
                self._ask(template)
            else:
                self._start()
        except BaseException:
            self.close()
            if self.channel:
                self.channel.close()
            raise

    @property
    def name(self) -> str:
        """`web@7.2`."""
        return f"{self.spec.service}@{self.id}"

    @property
    def pid(self) -> int:
        """The pid of the process we started; 0 for as long as its template has not made it."""
        return self.process.pid

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
    def told_others(self) -> tuple[Key, ...]:
        """The descendants that were told to stop, as the process that we started has ended."""
        return self._tree.told if self._tree else ()

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
        if fields.get("STOPPING") == "1" and sender == self.pid and self.ready and not self.told:
            self.told = True
            self._calm()
            self._uptake.look()
            self._put(WorkerStopping(worker=self.id, took=self._uptake.seen))

    def cannot_say(self) -> None:
        """Look whether it accepts: it may have been told to say it where nobody hears any more."""
        if not self.ready and self.pid:
            self._readiness.check(Sign.CANNOT_BE_HEARD)

    def takes(self) -> None:
        """Know that it takes what is passed to it."""
        self._readiness.check(Sign.TAKES_CONNECTIONS)

    def drain(self) -> None:
        """Send the stop signal to the process we started; it stops its own, while it lives."""
        self._calm()
        self.told = True
        if self._order:
            self._order.withdraw()
            self._not_made(0)
            return
        self._boot_is_over()
        if self._tree:
            self._tree.remember()
        self.process.signal(self.spec.stop_signal)

    def finish(self) -> None:
        """Send the stop signal once more: many programs, and our own runtime, then end at once."""
        self.process.signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Kill the whole process tree."""
        if self._order and self._template:  # which is what hangs, and tells us when it is dead
            self._template.kill()
        if self._tree:
            self._tree.kill()

    def last_words(self, why: str) -> LastWords:
        """Return what it said last, when we look because of `why`; its template, if it is none."""
        if self._order and self._template:
            return self._template.last_words(why)
        return self.output.last_words(why) if self.pid else self._words

    def what_was_seen(self) -> str:
        """Say, for a worker that did not get ready, what was looked for and what was seen."""
        if self._order:
            return "its template has not imported the application yet"
        return self._readiness.describe()

    def close(self) -> None:
        """Let go of the process and the pipe; nothing more is put."""
        self._readiness.close()
        if self._exit:
            self._exit.close()
        if self._tree:
            self._tree.close()
        if self._priority:
            self._priority.forget()
        if self._watchdog:
            self._watchdog.close()
        self.output.close()
        self.process.close()

    # Private

    def _open_output(self) -> WorkerOutput:
        try:
            return self._context.output(self.name, None)
        except SpawnError:
            if self._watchdog:
                self._watchdog.close()
            if self.channel:
                self.channel.close()
            raise

    def _take_leases(self) -> None:
        if self.channel:
            self._fds = [self.channel.theirs]
        else:
            self._fds = [listener.lease(self.lease) for listener in self._listeners]
        self.inodes = frozenset(os.fstat(fd).st_ino for fd in self._fds)

    def _begin(self, process: Process) -> None:
        self.process = process
        loop = self._context.loop
        self._exit = Exit(process, self.output, loop, self._main_ended, self._ended)
        self._tree = Tree(self.name, process, loop, self._sockets, self._user)
        self._priority = BootPriority(self.name, self.pid, loop, low=self._low)
        if not self.ready:
            self._readiness.start(self.pid, self.inodes)
        elif self._watchdog and not self.told:
            self._watchdog.start()

    def _start(self) -> None:
        try:
            process = Process(spawn(self._launch_worker()))
        finally:
            self.output.spawned()
        self._begin(process)

    def _ask(self, template: Template) -> None:
        self._order = Order(launch=self._launch_worker, made=self._made, failed=self._not_made)
        try:
            template.make(self._order, low=self._low)
        except BaseException:
            self.output.spawned()
            raise

    def _made(self, process: Process, orders: Orders) -> None:
        self._order = None
        self._begin(process)
        log.info(EventKind.WORKER_STARTED, worker=self.name, pid=self.pid)
        orders()
        self.output.spawned()

    def _not_made(self, why: int | str) -> None:
        """Tell the end of what has never begun: with a status, or with what kept it from that."""
        self._order = None
        self.output.spawned()
        if isinstance(why, int):
            self._words = self._template.words if self._template else LastWords()
            self._put(WorkerExited(worker=self.id, status=why))
        else:
            log.error(EventKind.CANNOT_START_WORKER, worker=self.name, error=why)
            self._put(SpawnFailed(worker=self.id, error=why))

    def _find_channel(self, survivor: Survivor | None) -> Channel | None:
        if self.spec.accept is not Accept.DISPATCH:
            return None
        if survivor is None:
            try:
                return Channel.create()
            except OSError as error:
                raise SpawnError(f"cannot open its channel: {error.strerror}") from error
        return Channel.adopt(*survivor.channel) if survivor.channel else None

    def _find_pulse(self, survivor: Survivor | None) -> Watchdog | None:
        """Return what watches the heartbeat, if it is to be watched, and is there."""
        limit = self.spec.hang_timeout
        if not limit:
            return None
        memory = (
            HeartbeatMemory.of(survivor.process.pid, FIRST_FD + len(self._fds))
            if survivor
            else HeartbeatMemory.create()
        )
        return (
            Watchdog(self.name, limit, memory, self._context.loop, self._on_hang)
            if memory
            else None
        )

    def _on_hang(self, beat: Beat, silent: float) -> None:
        log.error(EventKind.WORKER_HANGS, worker=self.name, pid=self.pid, silent=silent)
        # Only what said so itself prints its stacks on that signal; others would die of it.
        if beat.stacks_signal and beat.pid == self.pid:
            self.process.signal(beat.stacks_signal)
        limit = self.spec.hang_timeout or 0.0
        self._put(Hung(worker=self.id, why=f"hung: no sign of life for {limit:g} s"))

    def _launch_worker(self) -> Launch:
        if self.spec.accept is Accept.DISPATCH and self.channel is None:
            raise SpawnError(f"another worker has the lease of {self.name} by now")
        self._take_leases()  # a template takes its time, and a listener may have a new socket now
        fds, more = [], {}
        if self._watchdog and self.spec.hang_timeout:
            fds = [self._watchdog.memory.fd]
            more = heartbeat.environment(FIRST_FD + len(self._fds), self.spec.hang_timeout)
        argv = announcement.arguments(self.spec)
        return self._launch(self.output, argv, self.spec.executable, fds, **more)

    def _launch(
        self,
        output: WorkerOutput,
        argv: Sequence[str],
        executable: str,
        fds: Sequence[int] = (),
        **more: str,
    ) -> Launch:
        spec = self.spec
        env = dict(spec.env) | announcement.variables(spec, self._addresses)
        env |= dict(output.environment) | more
        if self._readiness.needs_notify_socket:
            env["NOTIFY_SOCKET"] = self._context.notify_address()
        return Launch(
            argv=tuple(argv),
            executable=executable,
            env=env,
            cwd=spec.cwd,
            fds=[*self._fds, *fds],
            umask=spec.umask,
            user=spec.user,
            group=spec.group,
            limits=spec.limits,
            set_listen_pid=spec.set_listen_pid,
            stdout=output.writer,
            stderr=output.writer,
        )

    def _start_command(self, command: Exec, executable: str) -> ReadyCommand:
        def start(output: WorkerOutput) -> Process:
            told = str(self.pid)
            launch = self._launch(output, command.argv, executable, SOCKMGR_WORKER_PID=told)
            return Process(spawn(launch))

        context = self._context
        return ReadyCommand(
            f"{self.name} ready?", context.sink, context.loop, start, self._say_ready
        )

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
        if self._priority:
            self._priority.over()

    def _main_ended(self, status: int, alone: Callable[[], None]) -> None:
        """See to it that what it has started ends, too; it goes on until nobody is left."""
        self._readiness.close()
        self._uptake.look()
        in_order = self.told or (self.ready and status in self.spec.clean_exits)
        # In order: the fleet has the deadline. After a crash nobody is to go on for long.
        deadline = math.inf if in_order else self._context.loop.time() + CRASH_TIME
        orphans = Orphans(self.spec.stop_signal, deadline, self._told_before)
        if self._tree and self._tree.end(orphans, alone):
            if in_order and not self.told:
                self.told = True
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
