"""One dispatcher: its process, and our end of the connection to it.

What is said over the connection is decided elsewhere (programs/dispatcher/messages).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sockmgr.errors import SpawnError
from sockmgr.kernel.process import Process, pid_of
from sockmgr.kernel.procfs import is_stopped
from sockmgr.kernel.rights import close_all
from sockmgr.kernel.spawn import silent_actions
from sockmgr.manager.crash_points import Point, reached, told
from sockmgr.programs.dispatcher import messages
from sockmgr.programs.dispatcher.messages import PROTOCOL, Incomplete, Message, Outbox

if TYPE_CHECKING:
    from sockmgr.manager.dispatch.dispatcher import Dispatcher

ANSWER = 1.0  # seconds after which one that does not answer is looked at
_ROOT = Path(__file__).parents[3]
# Imported, not run as a script: to compile it would take time at each start.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sockmgr.programs.dispatcher import server; server.main(sys.argv[2])"
)


class DispatcherProcess:
    """One dispatcher. Owns the connection and the pidfd.

    `is_heard`: it has answered the hello. `is_leaving`: it was asked to make way for another.
    """

    def __init__(
        self, owner: Dispatcher, connection: socket.socket, process: Process, *, is_last: bool
    ) -> None:
        """Use start() or adopt(). `is_last`: it is to end with us."""
        self.is_heard = self.is_leaving = False
        self.why_killed = ""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._connection, self.process = connection, process
        self._outbox = Outbox(self._loop, connection)
        self._epoch = time.monotonic_ns()
        self._is_last = is_last
        self._deadline: asyncio.TimerHandle | None = None
        self._end = asyncio.Event()

    @classmethod
    def start(cls, owner: Dispatcher, version: str, *, is_last: bool) -> DispatcherProcess:
        """Start one with the code of this manager, which is of `version`. Raises SpawnError."""
        try:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _cannot_start(error) from error
        with its:
            made = cls(owner, ours, Process(0, pidfd=-1), is_last=is_last)
            try:
                made._greet()  # before it runs: if we are killed now, it finds us gone
                made.process = Process(_spawn(ours, its, version))
                reached(Point.DISPATCHER_STARTED)
            except OSError as error:
                ours.close()
                raise _cannot_start(error) from error
        made._watch()
        return made

    @classmethod
    def adopt(
        cls, owner: Dispatcher, connection: int, pidfd: int, *, is_last: bool
    ) -> DispatcherProcess:
        """Own what another manager had of one; greet() comes next."""
        for fd in (connection, pidfd):
            os.set_inheritable(fd, False)
        process = Process(pid_of(pidfd), pidfd=pidfd)
        made = cls(owner, socket.socket(fileno=connection), process, is_last=is_last)
        made._watch()
        reached(Point.DISPATCHER_ADOPTED)
        return made

    @property
    def pid(self) -> int:
        return self.process.pid

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message after those before it; the fds are borrowed.

        Raises OSError if too many files are open; then the message is lost.
        """
        data = messages.write(message)
        # Messages are never overtaken: one that waits holds up all that come after it.
        if not self._outbox:
            try:
                messages.send(self._connection, data, fds)
                told(message["do"])
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionError):  # it is dead, which its pidfd tells
                return
            else:
                return
        # Duplicates: the caller may close its own before there is room to send them.
        self._outbox.put(data, [os.dup(fd) for fd in fds])

    def greet(self) -> None:
        """Say hello: what it says from now on is meant for us."""
        with contextlib.suppress(OSError):  # it is dead, which its pidfd tells
            self._greet()

    def expect(self, seconds: float) -> None:
        """Kill it if answered() is not called within so many seconds, unless that was said before.

        One that was stopped is killed after ANSWER: another may only be waiting for a processor.
        Its end is told as any other.
        """
        if self._deadline is None:
            wait = min(seconds, ANSWER)
            self._deadline = self._loop.call_later(wait, self._mind, wait, seconds)

    @property
    def is_expected(self) -> bool:
        return self._deadline is not None

    def answered(self) -> None:
        """Know that it lives."""
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    async def over(self, seconds: float) -> None:
        """Return when it has ended; kill it after so many seconds."""
        try:
            await asyncio.wait_for(self._end.wait(), seconds)
        except TimeoutError:
            self.kill("it did not end")
            await self._end.wait()

    def kill(self, why: str) -> None:
        """Kill it; its end is told with this reason."""
        self.why_killed = why
        self.process.signal(signal.SIGKILL)

    def close(self) -> None:
        """Hear nothing more, and let go of it."""
        self.answered()
        self._loop.remove_reader(self._connection)
        self._loop.remove_reader(self.process.pidfd)
        self._outbox.drop()
        self._connection.close()
        self.process.close()

    def _mind(self, waited: float, seconds: float) -> None:
        stopped = is_stopped(self.pid)
        if stopped or waited >= seconds:
            how = "it was stopped" if stopped else "it did not answer"
            self.kill(f"{how} for {waited:g} s")
        else:
            rest = seconds - waited
            self._deadline = self._loop.call_later(rest, self._mind, seconds, seconds)

    def _greet(self) -> None:
        about = {"protocol": PROTOCOL, "epoch": self._epoch, "last": self._is_last}
        # By our pidfd the dispatcher sees our death, also while a child has the connection as well.
        ourselves = os.pidfd_open(os.getpid())
        try:
            data = messages.write({"do": "hello", **about})
            messages.send(self._connection, data, [ourselves])
            told("hello")
        finally:
            os.close(ourselves)

    def _watch(self) -> None:
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection, self._receive)
        self._loop.add_reader(self.process.pidfd, self._on_end)

    def _receive(self) -> bool:
        """Hear the next message; return whether there was one."""
        try:
            heard = messages.receive(self._connection)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # told once; what it said before can still be read
            return True
        except Incomplete:  # we have too many open files, and its connections are lost
            return True
        if heard is None:
            self._loop.remove_reader(self._connection)
            return False
        message, fds = heard
        if message.get("epoch") == self._epoch:
            self._owner.hear(self, message, fds)
        else:  # it was meant for the manager before us
            close_all(fds)
        return True

    def _on_end(self) -> None:
        status = self.process.poll()
        if status is None:
            return
        self._loop.remove_reader(self.process.pidfd)
        # Its last words may still be on the way, e.g. the connections that it gave back.
        while self._connection.fileno() >= 0 and self._receive():
            pass
        self._end.set()
        self._owner.ended(self, status)


def command(version: str) -> list[str]:
    """Return the command line of a dispatcher, which says that its code is of this version."""
    return [sys.executable, "-I", "-S", "-E", "-c", _PROGRAM, str(_ROOT), version]


def _spawn(ours: socket.socket, its: socket.socket, version: str) -> int:
    """Start the program in a session of its own; return its pid. No signal but KILL ends it."""
    return os.posix_spawn(
        sys.executable,
        command(version),
        {"LC_ALL": "C"} | {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"},
        # CONNECTION and MANAGERS_END
        file_actions=silent_actions([its.fileno(), ours.fileno()]),
        setsid=True,
        setsigdef=signal.valid_signals(),
        setsigmask=signal.valid_signals(),
    )


def _cannot_start(error: OSError) -> SpawnError:
    return SpawnError(
        f"cannot start the dispatcher: {error.strerror}",
        means="workers that are passed connections get no new ones, which wait",
        do="look for what keeps the manager from starting processes (TasksMax=, LimitNOFILE=)",
    )
