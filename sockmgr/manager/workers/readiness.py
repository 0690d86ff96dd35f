"""How one worker is seen to be ready: one class for each kind of `ready` that a service can have.

A new kind is a class here with start(), check() and describe(), and a line in the table at the end.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sockmgr.config.spec import Accept, Accepting, Delay, Exec, Notify, Ready, Spec
from sockmgr.errors import SpawnError
from sockmgr.kernel import readiness
from sockmgr.launch.executable import find
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers import ports
from sockmgr.manager.workers.memory_reader import MemoryReader
from sockmgr.manager.workers.ready_command import ReadyCommand
from sockmgr.manager.workers.uptake import Uptake

LOOK_DELAY = 0.005  # between two looks at a starting worker ...
LOOK_SHARE = 20  # ... but a look may cost at most this part of our time


class Sign(Enum):
    """What the manager learns of a worker that starts, other than by looking at it."""

    SAYS_READY = auto()  # READY=1 came from the worker
    TAKES_CONNECTIONS = auto()  # the worker answered on its channel
    CANNOT_BE_HEARD = auto()  # the worker may write to a NOTIFY_SOCKET that nobody reads any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the watch of one worker is made of. `done` is called when the worker is ready.

    `run_command` starts a readiness command, given its file. `uptake` has a look whenever the
    watch looks.
    """

    spec: Spec
    listeners: Sequence[Listener]
    loop: asyncio.AbstractEventLoop
    memory: MemoryReader
    uptake: Uptake
    run_command: Callable[[Exec, str], ReadyCommand]
    done: Callable[[], None]


class Readiness(ABC):
    """The watch of one worker. It calls `done` when the worker is ready, unless closed before."""

    needs_notify_socket = False

    def __init__(self, watched: Watched) -> None:
        """Watch nothing yet. Raises SpawnError if the worker could never be seen to be ready."""
        self._watched = watched
        self._pid, self._inodes = 0, frozenset[int]()

    @property
    def pid(self) -> int:
        """The pid of the process that the watch itself runs now, 0 if it runs none."""
        return 0

    def start(self, pid: int, inodes: frozenset[int]) -> None:
        """Watch the process `pid`, which is to accept on the sockets `inodes`."""
        self._pid, self._inodes = pid, inodes
        self._begin()

    @abstractmethod
    def describe(self) -> str:
        """Say, for a worker that did not get ready, what was looked for and what was seen."""

    def check(self, sign: Sign) -> None:  # noqa: B027 - most kinds go by no sign
        """Judge a sign of the worker."""

    def close(self) -> None:  # noqa: B027 - a kind that only waits for a sign holds nothing
        """Watch no more."""

    def _begin(self) -> None:  # noqa: B027 - a kind that only waits for a sign does nothing
        """Begin to watch."""


class WaitsOnListeners(Readiness):
    """Ready when the kernel shows the worker waiting for a connection on each of its listeners."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False

    def _begin(self) -> None:
        self._watched.memory.use()
        self._is_open = True
        self._look()

    def describe(self) -> str:
        """Say which descriptors the worker waits on instead."""
        seen = readiness.describe(self._pid, self._inodes, self._watched.memory.read)
        return self._elsewhere() + seen

    def close(self) -> None:
        """Look no more, and let the helper that reads memory end."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._is_open:
            self._watched.memory.leave()
            self._is_open = False

    def _elsewhere(self) -> str:
        """Say where the worker listens instead, if it has opened a port of its own."""
        own = " and ".join(ports.opened_by(self._pid, self._inodes)[:4])
        listen = self._watched.spec.listen
        name = listen[0].name if listen else ""
        if not own:
            return ""
        return (
            f"it listens on {own}, which is none of its listeners: name the descriptor in its "
            f"command ({{{name}}}), or have it take LISTEN_FDS; "
        )

    def _look(self) -> None:
        loop, uptake = self._watched.loop, self._watched.uptake
        began = loop.time()
        for listener in self._watched.listeners:
            listener.sample()
        uptake.look()
        waited_on = readiness.accepting(self._pid, self._inodes, self._watched.memory.read)
        is_busy = uptake.seen and uptake.is_served_by(self._pid, waited_on)
        if waited_on >= self._inodes or is_busy:
            self._watched.done()
            return
        cost = loop.time() - began
        self._timer = loop.call_later(max(LOOK_DELAY, LOOK_SHARE * cost), self._look)


class AnswersOnChannel(Readiness):
    """Ready when the worker answers on its channel that it takes what is passed to it.

    Such a worker has no listener, so the kernel shows it waiting on none.
    """

    def check(self, sign: Sign) -> None:
        """Believe the channel, which only this worker has."""
        if sign is Sign.TAKES_CONNECTIONS:
            self._watched.done()

    def describe(self) -> str:
        """Name the page that tells what the answer is."""
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
            self._watched.done()
        elif sign is Sign.CANNOT_BE_HEARD and self._can_be_looked_at:
            self._instead = WaitsOnListeners(self._watched)
            self._instead.start(self._pid, self._inodes)

    def describe(self) -> str:
        """Say that no message came."""
        return "looked for READY=1 on NOTIFY_SOCKET from this worker; none came"

    def close(self) -> None:
        """Look no more, where the worker could not be heard."""
        if self._instead:
            self._instead.close()
            self._instead = None

    @property
    def _can_be_looked_at(self) -> bool:
        return self._instead is None and self._watched.spec.accept is not Accept.DISPATCH


class Delayed(Readiness):
    """Ready when a time has passed: a guess, for a worker that shows nothing."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched)
        self._timer: asyncio.TimerHandle | None = None

    def _begin(self) -> None:
        ready = self._watched.spec.ready
        assert isinstance(ready, Delay)  # noqa: S101 - by the table below
        self._timer = self._watched.loop.call_later(ready.seconds, self._watched.done)

    def describe(self) -> str:
        """Say that the two keys of the config contradict each other."""
        return f"its {self._watched.spec.ready} is longer than ready_timeout"

    def close(self) -> None:
        """Count no more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None


class CommandSaysSo(Readiness):
    """Ready when a command exits with 0; it is run again until it does."""

    def __init__(self, watched: Watched) -> None:
        """Raises SpawnError if there is no such command, before the worker is started."""
        super().__init__(watched)
        assert isinstance(watched.spec.ready, Exec)  # noqa: S101 - by the table below
        self._ready = watched.spec.ready
        self._file = _file_of(self._ready, watched.spec)
        self._command: ReadyCommand | None = None

    @property
    def pid(self) -> int:
        """The pid of the command that runs now, 0 between two runs."""
        return self._command.pid if self._command else 0

    def _begin(self) -> None:
        self._command = self._watched.run_command(self._ready, self._file)

    def describe(self) -> str:
        """Say what the command did last."""
        seen = f": {self._command.seen}" if self._command else ""
        return f"{self._ready} did not exit with 0{seen}"

    def close(self) -> None:
        """End the command."""
        if self._command:
            self._command.close()
            self._command = None


def _file_of(ready: Exec, spec: Spec) -> str:
    """Return the file of a readiness command; a spec of an older version has only its name."""
    program = ready.argv[0]
    found = find(ready.executable or program, dict(spec.env), spec.cwd)
    if found is None:
        raise SpawnError(f"its readiness command {program} is not there, or not executable")
    return found


def watch(watched: Watched) -> Readiness:
    """Return the watch for the kind of `ready` that the spec has. Raises SpawnError."""
    return _KINDS[type(watched.spec.ready)](watched)


def _seen_to_accept(watched: Watched) -> Readiness:
    passed = watched.spec.accept is Accept.DISPATCH
    return AnswersOnChannel(watched) if passed else WaitsOnListeners(watched)


_KINDS: Mapping[type[Ready], Callable[[Watched], Readiness]] = {
    Accepting: _seen_to_accept,
    Notify: SaysSo,
    Delay: Delayed,
    Exec: CommandSaysSo,
}
