"""One run of a command: what it prints goes to the log, and how it ended is told once, as a value.

Owns its process and the pipe that it prints to. Its standard input is /dev/null.

With the command ends what it has started and left in its session: a shell may wait for a curl,
which would go on alone. A daemon that made a session of its own by setsid(2), and whose parent has
ended, is nobody's: it goes on until the manager stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sockmgr.config.spec import Spec
from sockmgr.errors import SpawnError
from sockmgr.fleet.endings import describe_exit
from sockmgr.kernel.process import UNKNOWN_STATUS, Process, send
from sockmgr.kernel.procfs import descendants, start_time, tree
from sockmgr.kernel.spawn import Launch, spawn
from sockmgr.manager.logs.output import TAIL_LINES, Output
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.workers.context import WorkerContext
from sockmgr.terminal.pieces import Piece

KILL_SIGNAL = 9
# Of one whose manager died: only its parent, and Linux from 6.15 on, could tell more.
UNKNOWN = "has ended, and nobody knows how: the manager that ran it died meanwhile"
LOGGED_MAX = 256 * 1024  # characters of one run that go to the log: who prints more is not held up


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended. `fault` says what went wrong, and is empty if it exited with 0.

    `status` is as Popen.returncode; None if it was not started, was ended by us, or is not known.
    `lines` are the last ones that it printed.
    """

    fault: str = ""
    status: int | None = None
    lines: tuple[str, ...] = ()


class Command:
    """Runs one command once; start() or adopt() comes next, and then `done` is called, later.

    Its process is known to the family of all workers while it runs.
    """

    def __init__(self, name: str, context: WorkerContext, done: Callable[[Result], None]) -> None:
        """`name` stands before its lines in the log."""
        self._name, self._loop, self._family, self.done = name, context.loop, context.family, done
        self._share = _Share(name, context.sink)
        self.process: Process | None = None
        self.output: Output | None = None
        self._why_killed = ""
        self._timer: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """Open the pipe that it will print to, so that a next manager can have it before."""
        self.output = _Output(self._name, self._share, self._loop)

    def start(self, start: Callable[[Output], Process], timeout: float | None = None) -> None:
        """Start it by `start`, given what it prints to; kill it after `timeout` seconds."""
        try:
            if self.output is None:
                self.prepare()
            assert self.output is not None  # noqa: S101 - prepare() sets it, or raises
            try:
                self.process = start(self.output)
            finally:
                self.output.spawned()
        except SpawnError as error:  # it is missing, say, or there are too many processes
            self._share.lines(self._name, [Piece(error.what)])
            self._release()
            # Later, as for any other end: the caller may not be ready to hear of it yet.
            fault = f"could not be started: {error.what}"
            self._timer = self._loop.call_later(0, self._tell, Result(fault=fault))
            return
        self._watch(timeout)

    def adopt(self, process: Process | None, output: int) -> None:
        """Go on with one that another manager has started; own its process and its `output`.

        Without a process it was about to be started, or has ended: it is gone when nobody has the
        other end of its output any more.
        """
        self.process = process
        # Nothing is left to wait for: the caller has to live with not knowing.
        if process is None and output < 0:
            self._timer = self._loop.call_later(0, self._tell, Result(fault=UNKNOWN))
            return
        at_end = None if process else self._on_end_of_output
        self.output = _Output(self._name, self._share, self._loop, output, at_end)
        if process:
            self._watch(None)

    def kill(self, why: str) -> None:
        """Kill it with all that descends from it; `done` is told `why` when it is dead."""
        if self.process is None:
            return  # it has ended, or nobody knows which process it is
        self._why_killed = self._why_killed or why
        # Those that left its session are found while their parents live.
        found = [(pid, start_time(pid)) for pid in descendants(self.process.pid)]
        self.process.signal_group(KILL_SIGNAL)
        for pid, started in found:
            send(pid, started, KILL_SIGNAL)

    def close(self) -> None:
        """Kill it and let go of it; `done` is not called any more."""
        self.kill("")
        self._release()

    def _watch(self, timeout: float | None) -> None:
        assert self.process is not None  # noqa: S101 - both callers have set it
        self._family.join(self.process.pid)  # or it would be reaped as an orphan
        self._loop.add_reader(self.process.pidfd, self._on_exit)
        if timeout is not None:
            late = f"did not end within {timeout:g} s"
            self._timer = self._loop.call_later(timeout, self.kill, late)

    def _on_exit(self) -> None:
        process = self.process
        if process is None or (status := process.peek()) is None:
            return
        # Before it is reaped no other session can have its number.
        is_ours = process.is_child()
        self._end_what_is_left(process)
        process.poll()
        lines = self._release()
        if self._why_killed:
            self._tell(Result(fault=self._why_killed, lines=lines))
        elif not is_ours and status == UNKNOWN_STATUS:
            self._tell(Result(fault=UNKNOWN, lines=lines))
        else:
            fault = describe_exit(status) if status else ""
            self._tell(Result(fault=fault, status=status, lines=lines))

    def _end_what_is_left(self, process: Process) -> None:
        process.signal_group(KILL_SIGNAL)
        if process.is_child():  # so what it left are children of ours
            for stranger in self._family.strangers_of(process.pid):
                for pid in list(tree(stranger)):
                    send(pid, start_time(pid), KILL_SIGNAL)

    def _on_end_of_output(self) -> None:
        # Later: the output is in the middle of closing itself.
        self._loop.call_soon(lambda: self._tell(Result(fault=UNKNOWN, lines=self._release())))

    def _tell(self, result: Result) -> None:
        self._timer = None
        self.done(result)

    def _release(self) -> tuple[str, ...]:
        """Let go of the process and the output; return the last lines."""
        words: tuple[str, ...] = ()
        if self._timer:
            self._timer.cancel()
        if self.process:
            self._loop.remove_reader(self.process.pidfd)
            self._family.part(self.process.pid)
            self.process.close()
            self.process = None
        if self.output:
            self.output.close()
            words = self.output.tail
            self._share.end()
            self.output = None
        return words


class _Share:
    """The log, as one run of a command may use it: what is too much for it is only counted.

    So a command never waits for the log, as workers do.
    """

    full = False

    def __init__(self, name: str, sink: Sink) -> None:
        self._name, self._sink, self._left, self._dropped = name, sink, LOGGED_MAX, 0

    def lines(self, worker: str, pieces: Sequence[Piece], stream: str = "") -> None:
        del stream
        if self._left <= 0 or self._sink.full:
            self._dropped += len(pieces)
            return
        self._left -= sum(len(piece.text) + 1 for piece in pieces)
        self._sink.lines(worker, pieces)

    @property
    def spent(self) -> bool:
        """Whether no more goes to the log."""
        return self._left <= 0

    def skip(self, number: int) -> None:
        """Count lines that nobody cut."""
        self._dropped += number

    def resume(self, read_on: Callable[[], None]) -> None:
        """Do nothing: it is never full."""

    def end(self) -> None:
        if self._dropped:
            note = f"{self._dropped} more lines that it printed are not in the log"
            self._sink.lines(self._name, [Piece(note)])


class _Output(Output):
    """The pipe of a command: of what the log does not take any more only the end is cut."""

    def __init__(
        self,
        name: str,
        share: _Share,
        loop: asyncio.AbstractEventLoop,
        found: int | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name, share, loop, found, at_end)
        self._share = share

    def _fill(self) -> bool:
        more = super()._fill()
        if self._share.spent:
            self._share.skip(self._cutter.skip(TAIL_LINES))
        return more


def of_generation(
    spec: Spec, argv: Sequence[str], executable: str, variables: Mapping[str, str]
) -> Callable[[Output], Process]:
    """Return what starts a command as the workers of `spec` are started, without their sockets.

    It has their user, directory, environment and limits, and these `variables`.
    """

    def start(output: Output) -> Process:
        launch = Launch(
            argv=tuple(argv),
            executable=executable,
            env=dict(spec.env) | dict(variables),
            cwd=spec.cwd,
            umask=spec.umask,
            user=spec.user,
            group=spec.group,
            limits=spec.limits,
            set_listen_pid=False,
            stdout=output.writer,
            stderr=output.writer,
        )
        return Process(spawn(launch))

    return start
