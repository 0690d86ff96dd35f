"""How one worker is seen to be ready: one class for each kind of `ready` that a service can have.

A new kind is a class here with start(), check() and describe(), and a line in the table at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from sockmgr.api.types import WarmUp
from sockmgr.config.probe import HttpProbe, Probe, TcpProbe
from sockmgr.config.spec import Accept, Accepting, Delay, Exec, Notify, Ready, Spec
from sockmgr.errors import SpawnError
from sockmgr.kernel import readiness
from sockmgr.launch.executable import find
from sockmgr.manager.workers import ports
from sockmgr.manager.workers.asking import door, prober, warmed_up
from sockmgr.manager.workers.context import Assignment
from sockmgr.manager.workers.knock import ASKED, NOT_SEEN, Knock, door_of
from sockmgr.manager.workers.lookout import Turn
from sockmgr.manager.workers.ready_command import ReadyCommand
from sockmgr.manager.workers.uptake import Uptake

UNSEEN = "accepting = false beside exec has it run all the same"


class Sign(Enum):
    """What the manager learns of a worker that starts, other than by looking at it."""

    SAYS_READY = auto()  # READY=1 came from the worker
    TAKES_CONNECTIONS = auto()  # the worker answered on its channel
    CANNOT_BE_HEARD = auto()  # the worker may write to a NOTIFY_SOCKET that nobody reads any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the watch of one worker is made of. `done` is called when the worker is ready.

    `run_command` starts a readiness command, given its file, the URL by which it reaches the
    worker, and what to call when it has exited with 0. `uptake` has a look whenever the watch
    looks, `warmed` is told how the warm-up went. The worker was started at `since`.
    """

    assignment: Assignment
    uptake: Uptake
    run_command: Callable[[Exec, str, str, Callable[[], None]], ReadyCommand]
    done: Callable[[], None]
    warmed: Callable[[WarmUp], None]
    since: float


class Readiness(ABC):
    """The watch of one worker. It calls `done` when the worker is ready, unless closed before.

    `heard`: the worker has said READY=1, which it does once. `seen` is what its last probe found
    wrong.
    """

    needs_notify_socket = False
    heard = False
    seen = ""

    def __init__(self, watched: Watched) -> None:
        """Watch nothing yet. Raises SpawnError if the worker could never be seen to be ready."""
        self._watched, self._assignment = watched, watched.assignment
        self._spec, self._context = watched.assignment.command.spec, watched.assignment.context
        self._pid, self._inodes = 0, frozenset[int]()
        self._held = contextlib.ExitStack()  # what ends with this watch

    def start(self, pid: int, inodes: frozenset[int]) -> None:
        """Watch the process `pid`, which is to accept on the sockets `inodes`."""
        self._pid, self._inodes = pid, inodes
        self._begin()

    @abstractmethod
    def describe(self) -> str:
        """Say, for a worker that did not get ready, what was looked for and what was seen."""

    def check(self, sign: Sign) -> None:  # noqa: B027 - most kinds go by no sign
        """Judge a sign of the worker."""

    def close(self) -> None:
        self._held.close()

    def _begin(self) -> None:  # noqa: B027 - a kind that only waits for a sign does nothing
        """Begin to watch."""


class WaitsOnListeners(Readiness):
    """Ready when the kernel shows the worker waiting for a connection on each of its listeners.

    Where it shows that to nobody like us, a connection of our own has to be accepted instead.
    """

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._is_hidden = False
        self._knock: Knock | None = None

    def _begin(self) -> None:
        # The helper lives while anybody starts; no worker is looked at once it serves.
        self._context.memory.use()
        self._held.callback(self._context.memory.leave)
        watch = self._context.lookout.watch(self._look)
        self._held.callback(self._context.lookout.leave, watch)

    def describe(self) -> str:
        """Say which descriptors the worker waits on instead."""
        if self._knock:
            return self._knock.seen
        seen = readiness.describe(self._pid, self._inodes, self._context.memory.read)
        return self._elsewhere() + seen

    def _elsewhere(self) -> str:
        """Say where the worker listens instead, if it has opened a port of its own."""
        # The commonest mistake by far: the server was not made to use the socket that it inherits.
        own = " and ".join(ports.opened_by(self._pid, self._inodes)[:4])
        listen = self._spec.listen
        name = listen[0].name if listen else ""
        if not own:
            return ""
        return (
            f"it listens on {own}, which is none of its listeners: name the descriptor in its "
            f"command ({{{name}}}), or have it take LISTEN_FDS; "
        )

    def _look(self, turn: Turn) -> bool:
        """Look once, and tell whether it was ready. Costs what threads the worker has."""
        # Most connections wait while workers start, so the peak for the receipt is measured here.
        for listener in self._assignment.listeners:
            turn.sample(listener)
        uptake = self._watched.uptake
        uptake.look()
        if self._knock:
            return False
        # A busy worker may never be seen to wait: then what it has taken from the queues counts.
        waited_on = readiness.accepting(self._pid, self._inodes, self._context.memory.read)
        is_ready = waited_on >= self._inodes or (
            uptake.seen and uptake.is_served_by(self._pid, waited_on, turn)
        )
        if is_ready:
            self._watched.done()
        elif not self._is_hidden and readiness.is_hidden(self._pid):
            self._is_hidden = True
            self._go_without()
        return is_ready

    def _go_without(self) -> None:
        """Knock instead of looking, if a connection can be had that leads to it."""
        way = door_of(self._assignment.listeners)
        self._context.lookout.tell(self._spec.service, *(ASKED if way else NOT_SEEN))
        if way:
            self._knock = Knock(self._assignment, way, self._watched.done)
            self._held.callback(self._knock.close)


class AnswersOnChannel(Readiness):
    """Ready when the worker answers on its channel that it takes what is passed to it.

    Such a worker has no listener, so the kernel shows it waiting on none.
    """

    def check(self, sign: Sign) -> None:
        """Believe the channel, which only this worker has."""
        if sign is Sign.TAKES_CONNECTIONS:
            self._watched.done()

    def describe(self) -> str:
        return "it did not answer on its channel: dispatch-protocol.md"


class SaysSo(Readiness):
    """Ready when the worker itself says READY=1 on NOTIFY_SOCKET (sd_notify(3))."""

    needs_notify_socket = True

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._instead: WaitsOnListeners | None = None

    def check(self, sign: Sign) -> None:
        """Believe the worker; go by what the kernel shows if the worker cannot be heard."""
        if sign is Sign.SAYS_READY:
            self.heard = True
            self._watched.done()
        elif (
            sign is Sign.CANNOT_BE_HEARD
            and self._instead is None
            and self._spec.accept is not Accept.DISPATCH
        ):
            # A worker says READY=1 once. If that was lost, it would be killed for a fault of ours.
            self._instead = WaitsOnListeners(self._watched)
            self._instead.start(self._pid, self._inodes)
            self._held.callback(self._instead.close)

    def describe(self) -> str:
        return "looked for READY=1 on NOTIFY_SOCKET from this worker; none came"


class Delayed(Readiness):
    """Ready when a time has passed: a guess, for a worker that shows nothing."""

    def _begin(self) -> None:
        ready = self._spec.ready
        assert isinstance(ready, Delay)  # noqa: S101 - by the table below
        timer = self._context.loop.call_later(ready.seconds, self._watched.done)
        self._held.callback(timer.cancel)

    def describe(self) -> str:
        """Say that the two keys of the config contradict each other."""
        return f"its {self._spec.ready} is longer than ready_timeout"


class CommandSaysSo(Readiness):
    """Ready when it is seen to accept, and then a command exits with 0; it is run until it does."""

    def __init__(self, watched: Watched) -> None:
        """Raises SpawnError if there is no such command, before the worker is started."""
        super().__init__(watched)
        assert isinstance(self._spec.ready, Exec)  # noqa: S101 - by the table below
        self._ready = self._spec.ready
        self._file = _file_of(self._ready, self._spec)
        # What the command asks may be answered by the worker before this one, or by a sibling.
        is_seen = self._ready.accepting and self._spec.listen
        self._first = _seen_to_accept(replace(watched, done=self._run)) if is_seen else None
        self._command: ReadyCommand | None = None

    def check(self, sign: Sign) -> None:
        if self._first:
            self._first.check(sign)

    def describe(self) -> str:
        """Say that it was not seen to accept, or what the command did last."""
        if self._first:
            return f"{self._first.describe()}; so its {self._ready} was not run ({UNSEEN})"
        seen = f": {self._command.seen}" if self._command else ""
        return f"{self._ready} did not exit with 0{seen}"

    def close(self) -> None:
        super().close()
        self._first = None  # a sign that comes late is not to run the command

    def _begin(self) -> None:
        if self._first:
            self._held.callback(self._first.close)
            self._first.start(self._pid, self._inodes)
        else:
            self._run()

    def _run(self) -> None:
        if self._first:
            self._first.close()
            self._first = None
        url = ""
        if way := door(self._spec, self._assignment.listeners, self._assignment.reach):
            self._held.callback(way.close)
            url = way.url
        self._command = self._watched.run_command(self._ready, self._file, url, self._watched.done)
        self._held.callback(self._command.close)


class Asked(Readiness):
    """Ready when it is by another kind, and then has passed its probe and was warmed up."""

    def __init__(
        self, watched: Watched, kind: Callable[[Watched], Readiness], probe: Probe | None
    ) -> None:
        """Without a `probe` it is only warmed up, if its spec says so."""
        super().__init__(watched)
        self._first = kind(replace(watched, done=self._go_on))
        self._held.callback(self._first.close)
        self.needs_notify_socket = self._first.needs_notify_socket
        self._prober = probe and prober(self._assignment, probe)
        self._task: asyncio.Task[None] | None = None
        self._at = ""

    def check(self, sign: Sign) -> None:
        self._first.check(sign)
        self.heard = self._first.heard

    def describe(self) -> str:
        """Say what the other kind lacks, or what the last probe saw."""
        return self.seen or self._at or self._first.describe()

    def _begin(self) -> None:
        self._first.start(self._pid, self._inodes)

    def _go_on(self) -> None:
        if self._task is None:
            self._first.close()
            self._task = self._context.loop.create_task(self._ask(), name="probe")
            self._held.callback(self._task.cancel)

    async def _ask(self) -> None:
        watched, given = self._watched, self._assignment
        # Asked again before each try: a queue may get clients, or somebody else who answers there.
        while self._prober and given.asks():
            self._at = f"{self._prober.probe} was under way"
            if not (seen := await self._prober.ask()):
                break
            self.seen = seen
            await asyncio.sleep(self._prober.probe.every)
        self.seen = ""
        # Clients that come already are not to wait for it.
        if self._spec.rollout.warmup and not given.is_fed():
            self._at = "it was being warmed up"
            limit = (watched.since + self._spec.ready_timeout - self._context.loop.time()) / 2
            watched.warmed(await warmed_up(given, max(0.0, limit)))
        self._held.pop_all()  # done() closes this watch, and would cancel this task
        watched.done()


def _file_of(ready: Exec, spec: Spec) -> str:
    """Return the file of a readiness command; a spec of an older version has only its name."""
    # It is looked up in the environment of the worker, which is where it will run.
    program = ready.argv[0]
    found = find(ready.executable or program, dict(spec.env), spec.cwd)
    if found is None:
        raise SpawnError(f"its readiness command {program} is not there, or not executable")
    return found


def watch(watched: Watched) -> Readiness:
    """Return the watch for the kind of `ready` that the spec has. Raises SpawnError."""
    spec = watched.assignment.command.spec
    ready, kind = spec.ready, _KINDS[type(spec.ready)]
    probe = ready if isinstance(ready, HttpProbe | TcpProbe) else None
    if probe or spec.rollout.warmup:
        return Asked(watched, kind, probe)
    return kind(watched)


def _seen_to_accept(watched: Watched) -> Readiness:
    # A worker that is passed connections has no listener on which it could be seen to wait.
    passed = watched.assignment.command.spec.accept is Accept.DISPATCH
    return AnswersOnChannel(watched) if passed else WaitsOnListeners(watched)


_KINDS: Mapping[type[Ready], Callable[[Watched], Readiness]] = {
    Accepting: _seen_to_accept,
    Notify: SaysSo,
    Delay: Delayed,
    Exec: CommandSaysSo,
    # Not before it accepts: a request that nobody takes would only find that out later.
    HttpProbe: _seen_to_accept,
    TcpProbe: _seen_to_accept,
}
