"""How one worker is seen to be ready: by what the `ready` of its service asks for.

Owns the timer of the next look, and the readiness command while it runs. A worker that says of
itself that it is ready is not heard here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import assert_never

from sockmgr.config.spec import Accept, Accepting, Delay, Exec, Notify, Spec
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


class ReadinessWatch:
    """Of one worker of `spec`. Calls `done` when it is ready, unless closed before."""

    def __init__(
        self,
        spec: Spec,
        listeners: Sequence[Listener],
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[Exec, str], ReadyCommand],
        done: Callable[[], None],
        memory: MemoryReader,
        uptake: Uptake,
    ) -> None:
        """`ask` starts a readiness command, given its file. Raises SpawnError if there is none.

        `uptake` has a look whenever we do.
        """
        self._spec, self._listeners, self._loop = spec, listeners, loop
        self._memory, self._reads = memory, False
        self._ask, self._done, self._uptake = ask, done, uptake
        self._asker = _find_asker(spec)
        self._pid, self._inodes = 0, frozenset[int]()
        self._timer: asyncio.TimerHandle | None = None
        self._probe: ReadyCommand | None = None

    @property
    def pid(self) -> int:
        """The pid of the readiness command that runs now, 0 if none does."""
        return self._probe.pid if self._probe else 0

    def start(self, pid: int, inodes: frozenset[int]) -> None:
        """Watch the worker `pid`, which is to accept on the sockets `inodes`."""
        self._pid, self._inodes = pid, inodes
        ready = self._spec.ready
        match ready:
            case Accepting() if self._spec.accept is Accept.DISPATCH:
                pass  # it accepts nowhere, and says on its channel that it takes what is passed
            case Accepting():
                self._memory.use()
                self._reads = True
                self._look()
            case Delay():
                self._timer = self._loop.call_later(ready.seconds, self._done)
            case Exec():
                self._probe = self._ask(ready, self._asker)
            case Notify():
                pass  # it says so itself
            case _:
                assert_never(ready)

    def look_instead(self) -> None:
        """Go by what the kernel shows, for a worker that cannot be heard."""
        if self._timer is None and self._spec.accept is not Accept.DISPATCH:
            self._look()

    def describe(self) -> str:
        """Say, for a worker that did not get ready, what was looked for and what was seen."""
        ready = self._spec.ready
        match ready:
            case Accepting() if self._spec.accept is Accept.DISPATCH:
                return "it did not answer on its channel: dispatch-protocol.md"
            case Accepting():
                return self._elsewhere() + readiness.describe(
                    self._pid, self._inodes, self._memory.read
                )
            case Notify():
                return "looked for READY=1 on NOTIFY_SOCKET from this worker; none came"
            case Exec():
                seen = f": {self._probe.seen}" if self._probe else ""
                return f"{ready} did not exit with 0{seen}"
            case Delay():
                return f"its {ready} is longer than ready_timeout"
        assert_never(ready)

    def close(self) -> None:
        """Watch no more, and end the readiness command."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._probe:
            self._probe.close()
            self._probe = None
        if self._reads:
            self._memory.leave()
            self._reads = False

    def _elsewhere(self) -> str:
        """Say where it listens instead, if that is a port of its own."""
        own = " and ".join(ports.opened_by(self._pid, self._inodes)[:4])
        name = self._spec.listen[0].name if self._spec.listen else ""
        if not own:
            return ""
        return (
            f"it listens on {own}, which is none of its listeners: name the descriptor in its "
            f"command ({{{name}}}), or have it take LISTEN_FDS; "
        )

    def _look(self) -> None:
        began = self._loop.time()
        for listener in self._listeners:
            listener.sample()
        self._uptake.look()
        waited_on = readiness.accepting(self._pid, self._inodes, self._memory.read)
        is_busy = self._uptake.seen and self._uptake.is_served_by(self._pid, waited_on)
        if waited_on >= self._inodes or is_busy:
            self._done()
            return
        cost = self._loop.time() - began
        self._timer = self._loop.call_later(max(LOOK_DELAY, LOOK_SHARE * cost), self._look)


def _find_asker(spec: Spec) -> str:
    """Return the file of the readiness command, if there is one; start nothing without it."""
    if not isinstance(spec.ready, Exec):
        return ""
    program = spec.ready.executable or spec.ready.argv[0]
    found = find(program, dict(spec.env), spec.cwd)
    if found is None:
        raise SpawnError(f"its readiness command {program} is not there, or not executable")
    return found
