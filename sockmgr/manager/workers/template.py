"""The template of one generation, as the manager has it: a process that makes workers when asked.

Started when the first worker is needed, and again if it has ended since. Owns its process, its
output and the socket to it, and a worker's process until that is given away. Decides nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

from sockmgr.errors import SockmgrError, SpawnError
from sockmgr.fleet.endings import describe_exit
from sockmgr.fleet.messages import Spawn
from sockmgr.kernel.process import Process, own_child
from sockmgr.kernel.rights import close_all
from sockmgr.kernel.spawn import Launch, spawn
from sockmgr.log import Log
from sockmgr.manager.logs.output import LastWords, WorkerOutput
from sockmgr.manager.workers.boot_priority import BootPriority, Boots
from sockmgr.manager.workers.exit import KILL_SIGNAL, Exit
from sockmgr.manager.workers.family import Family
from sockmgr.worker import wire

# What is a worker's own, and nothing for the process that all are copied from.
_OF_A_WORKER = frozenset({
    "NOTIFY_SOCKET", "JOURNAL_STREAM", "SOCKMGR_HEARTBEAT", "SOCKMGR_FIGURES", "SOCKMGR_GIVE_FD",
    "SOCKMGR_TAKE_FD", "SOCKMGR_PROBE_FD", "SOCKMGR_SLOT", "SOCKMGR_WORKER",
})  # fmt: skip

log = Log("sockmgr")

NewOutput = Callable[[str, tuple[int, ...]], WorkerOutput]  # by name, and what was found of it
Begin = Callable[[], None]  # lets a worker begin, once the manager has recorded it


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A request for one worker. Exactly one of `made` and `failed` is called, unless withdrawn.

    `launch` is called when the worker is made: its descriptors may change meanwhile. `own` are
    variables that each worker has a value of its own of, and the template none.
    `made(process, begin)` takes ownership of the process. It calls `begin()` once the process has
    been recorded, so that a new manager could adopt the worker. `failed` gets the exit status of
    the template, or what kept the template from making the worker.
    """

    launch: Callable[[], Launch]
    made: Callable[[Process, Begin], None]
    failed: Callable[[int | str], None]
    own: frozenset[str] = frozenset()
    wanted: bool = True

    def withdraw(self) -> None:
        """Want the worker no more; if it is just being made, it ends before it has begun."""
        self.wanted = False


@dataclass(slots=True, kw_only=True)
class _Run:
    """One process of a template, from its start to its end. `asked`: the worker it makes now."""

    process: Process
    output: WorkerOutput
    control: socket.socket
    env: Mapping[str, str]
    since: float
    boot: BootPriority
    exit: Exit
    imported: bool = False
    asked: tuple[Request, socket.socket] | None = None

    def close(self) -> None:
        # The process last: the others watch its pidfd, which may be reused once it is closed.
        self.boot.forget()
        self.exit.close()
        self.control.close()
        self.output.close()
        self.process.close()


class Template:
    """At most one process at a time; `close` when its generation needs no worker any more."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        output: NewOutput,
        boots: Boots,
        family: Family,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when a worker was made, before it is told to begin."""
        self.name, self.words = name, LastWords()
        self._loop, self._new_output, self._boots, self._changed = loop, output, boots, changed
        self._family = family
        self._waiting: deque[Request] = deque()
        self._run: _Run | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """The pid of the process; 0 without one."""
        return self._run.process.pid if self._run else 0

    def make(self, request: Request, *, low: bool, timeout: float) -> None:
        """Have a worker made; a template that is started boots at `low` priority.

        The worker is to be ready after `timeout` seconds. Raises SpawnError or ListenError.
        """
        # The template is started late: a generation that is aborted at once never needs one.
        if self._run is None:
            self._run = self._start(request.launch(), request.own, low=low, timeout=timeout)
        self._waiting.append(request)
        self._ask(self._run)

    def last_words(self, why: str) -> LastWords:
        """Return what the template has said until now, when we look because of `why`."""
        words = self._run.output.last_words(why) if self._run else self.words
        return replace(words, said_by=self.name)

    def kill(self) -> None:
        """Kill it; whoever waits is told so."""
        if self._run:
            self._run.process.signal_group(KILL_SIGNAL)

    def close(self) -> None:
        """Kill it for good: it has nothing to finish."""
        self._closed = True
        self.kill()

    # Private

    def _start(self, launch: Launch, own: frozenset[str], *, low: bool, timeout: float) -> _Run:
        output = self._new_output(self.name, ())
        try:
            ours, its = _pair()
        except SpawnError:
            output.spawned()
            output.close()
            raise
        # The template imports with the variables of its workers: applications read some only once.
        env = {k: v for k, v in launch.env.items() if k not in _OF_A_WORKER | own}
        env |= output.environment
        template = replace(
            launch,
            argv=(*launch.argv, f"--template={len(launch.fds)}"),
            env=env,
            fds=(its.fileno(),),  # none of the sockets: it outlives the workers that have them
            stdout=output.ends[0],
            stderr=output.ends[1],
        )
        try:
            process = Process(spawn(template))
        except BaseException:
            ours.close()
            output.close()
            raise
        finally:
            its.close()
            output.spawned()
        self._loop.add_reader(ours, self._hear)
        self._family.join(process.pid)
        log.info("template started", template=self.name, pid=process.pid)
        return _Run(
            process=process,
            output=output,
            control=ours,
            env=env,
            since=self._loop.time(),
            boot=self._boots.begin(self.name, process.pid, timeout, low),
            exit=Exit(process, output, self._loop, self._dying, self._ended),
        )

    def _ask(self, run: _Run) -> None:
        """Ask for the next worker, if the template is free to make it."""
        # These requests were withdrawn, by a stop or a kill, before their turn came.
        while self._waiting and not self._waiting[0].wanted:
            self._waiting.popleft()
        # One worker at a time is asked for, so that each answer can only be about that one.
        if run.asked or not (run.imported and self._waiting):
            return
        try:
            ours, its = _pair()
        except SpawnError as error:
            self._waiting.popleft().failed(error.what)
            self._ask(run)
            return
        with its:  # the template has its own copy by then, for the worker
            try:
                socket.send_fds(run.control, [wire.MAKE], [its.fileno()])
            except OSError:  # it has died, which its exit tells
                ours.close()
                return
        run.asked = self._waiting.popleft(), ours

    def _dying(self, status: int, alone: Callable[[], None]) -> None:
        """It is dead: hear what it said before that. Nobody is left who may go on."""
        del status
        while self._hear():
            pass
        alone()

    def _hear(self) -> bool:
        """Take one message; False if there is none, or will be none any more."""
        if (run := self._run) is None:
            return False
        try:
            data, fds = wire.receive(run.control, 4096, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECONNRESET:  # which says: it died, and had not read everything
                self._deliver(run, None, error.strerror or "")
                self._ask(run)
                return False
            data, fds = b"", []
        if data == wire.IMPORTED and not run.imported:
            self._imported(run)
        elif data == wire.MADE and fds and run.asked:
            self._deliver(run, fds.pop())
        elif data.startswith(wire.FAILED) and run.asked:
            self._deliver(run, None, data.removeprefix(wire.FAILED).decode(errors="replace"))
        else:
            self._loop.remove_reader(run.control)
            if data:  # nonsense; else it is about to end, and its status tells why
                self.kill()
        close_all(fds)
        self._ask(run)
        return bool(data)

    def _imported(self, run: _Run) -> None:
        run.imported = True
        # Workers inherit the priority of their template, and are about to serve: sched(7).
        run.boot.over()
        took = self._loop.time() - run.since
        log.info("template ready", template=self.name, pid=run.process.pid, took=took)

    def _deliver(self, run: _Run, pidfd: int | None, why: str = "") -> None:
        """Give away the worker that was asked for, or say why there is none."""
        if run.asked is None:
            return
        (request, channel), run.asked = run.asked, None
        # The pidfd is checked: code of the application runs in the template, and could send any.
        process = None if pidfd is None else own_child(pidfd, run.process.pid)
        with channel:  # whose end ends a worker that was not told to begin
            if process and request.wanted:
                request.made(process, lambda: self._send(run, request, channel))
            elif process:
                process.close()
            elif request.wanted:
                request.failed(f"its template could not make it: {why or 'it is none of our own'}")

    def _send(self, run: _Run, request: Request, channel: socket.socket) -> None:
        # The worker is recorded first: one that is in no record would be killed as a stranger.
        self._changed()
        try:
            launch = request.launch()
            # Only what differs is sent: the worker has the template's environment already.
            new = launch.env.items() - run.env.items()
            gone = run.env.keys() - launch.env.keys()
            message = wire.encode(dict.fromkeys(gone) | dict(new))
            fds = [launch.stdout, launch.stderr, *launch.fds]
            socket.send_fds(channel, [message], fds)
        except (OSError, SockmgrError) as error:  # it has died, or will at the channel's end
            log.error("worker not told to begin", template=self.name, error=error)

    def _ended(self, status: int) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        self._loop.remove_reader(run.control)
        self._family.part(run.process.pid)
        self.words = replace(run.output.last_words(""), said_by=self.name)
        run.close()
        waiting = [request for request in self._waiting if request.wanted]
        self._waiting.clear()
        if run.asked:
            request, channel = run.asked
            channel.close()
            waiting += [request] if request.wanted else []
        tell = log.error if waiting else log.info if self._closed else log.warning
        tell("template ended", template=self.name, pid=run.process.pid, how=describe_exit(status))
        # This comes last: each failure may have the fleet ask for a worker, and so for a process.
        for request in waiting:
            request.failed(status)


def _pair() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise SpawnError(
            f"cannot open a socket to a template: {error.strerror}",
            do="raise LimitNOFILE= of the manager",
        ) from error


class Templates:
    """The templates of one service, by generation."""

    def __init__(self, service: str, make: Callable[[str], Template]) -> None:
        """`make` returns a Template of a name, which has no process yet."""
        self._service, self._make = service, make
        self._all: dict[int, Template] = {}

    def of(self, command: Spawn) -> Template | None:
        """Return what makes this worker, or None if nothing is preloaded."""
        if not command.spec.preload:
            return None
        number = command.worker.generation
        if number not in self._all:
            name = f"{self._service}@{number}.template"
            self._all[number] = self._make(name)
        return self._all[number]

    def end_all_but(self, needed: Container[int]) -> None:
        """End the templates of all generations but the `needed` ones, which may get workers."""
        for number in [number for number in self._all if number not in needed]:
            self._all[number].close()
            # A template is kept until its process has ended, so that somebody reaps that.
            if not self._all[number].pid:
                del self._all[number]
