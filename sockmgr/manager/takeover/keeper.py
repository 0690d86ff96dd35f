"""Speak with the keeper (sockmgr/programs/keeper.py), a process that holds descriptors for us.

Owns the connection to the keeper and its pidfd. What is kept under which name, and when, is decided
elsewhere. A path is for one manager at a time; whoever has its control socket may use it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from sockmgr.errors import ControlError
from sockmgr.kernel import rights, unix_node
from sockmgr.kernel.spawn import silent_actions
from sockmgr.programs.keeper import MAX_FDS, MAX_NAME

START_TIMEOUT = 10.0  # seconds: a Python has to start, perhaps on a busy machine
CALL_TIMEOUT = 2.0  # seconds, in which the event loop waits: a keeper that lives answers at once

_HELLO = b"T1"

# Imported, not run as a script: to compile it would cost 0.7 MB for as long as it lives.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); import keeper; keeper.main()"

_NOT_NOW = "nothing is lost while this manager lives; but if it is killed, no other could go on"
_OTHER_PATH = "stop what is there, or name another path with --control"
_MORE_FILES = "raise LimitNOFILE= or ulimit -n of the manager"


class Keeper:
    """A keeper that serves this manager, until `close()`, `dismiss()` or `kill()`.

    Each call is a request and its reply, and is given up after `timeout` seconds. If the keeper is
    gone or does not answer, the call raises ControlError, later calls do so at once, and `fileno()`
    turns readable: then `kill()` the keeper and start another.
    """

    def __init__(self, path: Path, connection: socket.socket) -> None:
        """Own a connection on which the keeper has not answered our hello yet."""
        self.path = path
        self.timeout = CALL_TIMEOUT
        self.pid = 0
        self._connection = connection
        self._pidfd = -1

    @classmethod
    def start(cls, path: Path) -> Keeper:
        """Start a keeper at `path`, in place of a dead one; it survives us, and is not our child.

        Raises ControlError if it cannot be started, or if a keeper is there, which take_over()
        would get.
        """
        keeper = cls(path.absolute(), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            keeper._start()
        except (OSError, EOFError) as error:
            keeper.kill()
            raise _cannot("start", path, error) from error
        except ControlError:
            keeper.close()
            raise
        return keeper

    @classmethod
    def take_over(cls, path: Path) -> tuple[Keeper, list[tuple[str, list[int]]]] | None:
        """Return the keeper of a former manager and all it holds; None if nobody answers at `path`.

        The caller owns the descriptors, which are close-on-exec; the keeper has them as well. If
        the keeper dies meanwhile, those that had arrived are returned. Raises ControlError if
        another manager was quicker, if the keeper hangs, or if it holds more than we may open.
        """
        keeper = cls(path.absolute(), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            keeper._connect()
            keeper._greet()
            return keeper, keeper._collect()
        except (FileNotFoundError, ConnectionError, EOFError):  # it is dead, or dies now
            keeper.close()
            return None
        except OSError as error:
            keeper.close()
            raise _cannot("take over", path, error, keeper.pid) from error
        except ControlError:
            keeper.close()
            raise

    @classmethod
    def resume(cls, fd: int, path: Path) -> Keeper:
        """Go on with the keeper whose connection `fd` was inherited over exec; owns it.

        Raises ControlError if the keeper is lost; then `fd` is closed.
        """
        keeper = cls(path.absolute(), socket.socket(fileno=fd))
        keeper._connection.set_inheritable(False)
        try:
            keeper._connection.send(_HELLO)
            keeper._greet()
        except (OSError, EOFError) as error:
            keeper.close()
            raise _cannot("resume", path, error) from error
        return keeper

    def fileno(self) -> int:
        """Return the connection, borrowed; it is readable only when the keeper is lost."""
        return self._connection.fileno()

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Have the keeper hold duplicates of `fds`, in this order, and nothing else under `name`.

        Raises OSError if `fds` cannot be sent (EBADF, ETOOMANYREFS), ControlError if the keeper is
        lost or cannot open so many. They go all at once or not at all.
        """
        label = os.fsencode(name)
        if not (0 < len(fds) <= MAX_FDS and 0 < len(label) <= MAX_NAME):
            raise ValueError(f"cannot keep {len(fds)} descriptors as {name!r}")
        self._call(b"=" + label, fds)

    def forget(self, name: str) -> None:
        """Have the keeper close what it holds under `name`, if anything."""
        self._call(b"-" + os.fsencode(name))

    def dismiss(self) -> None:
        """Have the keeper close everything, remove its path and exit; return when it has.

        A keeper that does not exit in time is killed.
        """
        with contextlib.suppress(OSError):
            self._connection.send(b"D")
            if _has_ended(self._pidfd, self.timeout):
                self.close()
                return
        self.kill()

    def kill(self) -> None:
        """Kill a keeper that is lost, if it still lives; remove its path; close the connection."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                _has_ended(self._pidfd, CALL_TIMEOUT)
        with contextlib.suppress(OSError, ControlError):
            _clear(self.path)
        self.close()

    def close(self) -> None:
        """Let the keeper go, as our death would: it holds everything for the next manager."""
        with contextlib.suppress(OSError):  # shut, since a child has it as well until it execs
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1

    def _start(self) -> None:
        _clear(self.path)
        with unix_node.listen(self.path, socket.SOCK_SEQPACKET, 1) as listener:
            # Our hello is in its queue before it runs: if we are killed now, it finds us gone.
            self._connect()
            intermediate = _spawn(self.path, listener)
        try:
            self._greet(START_TIMEOUT)
        except (OSError, EOFError, ControlError):
            os.kill(intermediate, signal.SIGKILL)
            raise
        finally:
            # The keeper is a grandchild, so that it never is a child that we would have to reap.
            os.waitpid(intermediate, 0)
        with contextlib.suppress(OSError):  # it may hold more than we may open
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (hard, hard))

    def _connect(self) -> None:
        self._connection.setblocking(False)  # connect(2) would wait for one that hangs
        self._connection.connect(os.fspath(self.path))
        self.pid = _pid_of_ours(self._connection)
        self._connection.send(_HELLO)

    def _greet(self, timeout: float = CALL_TIMEOUT) -> None:
        reply, _ = self._receive(timeout)
        if reply == b"R":
            raise ControlError(
                f"the keeper at {self.path} serves another manager",
                means="what it holds is in use there; nothing was taken",
                do=_OTHER_PATH,
            )
        self.pid = int(reply[1:])
        # SO_PEERCRED does not tell the pid of a keeper that we start: we connect before it listens.
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            raise EOFError from error

    def _call(self, request: bytes, fds: Sequence[int] = ()) -> None:
        """Have a request obeyed; raise ControlError if the keeper cannot, or is lost."""
        try:
            self._exchange(request, fds)
        except (ConnectionError, EOFError) as error:
            raise self._lost("is gone") from error
        except TimeoutError as error:
            raise self._lost(f"has not answered for {self.timeout:g} s") from error

    def _exchange(self, request: bytes, fds: Sequence[int] = ()) -> tuple[bytes, list[int]]:
        self._connection.settimeout(self.timeout)
        socket.send_fds(self._connection, [request], fds)
        reply, received = self._receive(self.timeout)
        if reply[:1] == b"!":
            raise ControlError(
                f"the keeper (pid {self.pid}) refused {os.fsdecode(request)!r}: "
                f"{os.fsdecode(reply[1:])}",
                means=_NOT_NOW,
                do=_MORE_FILES,
            )
        return reply, received

    def _receive(self, timeout: float) -> tuple[bytes, list[int]]:
        """Return the next reply and its descriptors; raise EOFError at the end."""
        self._connection.settimeout(timeout)
        room = socket.CMSG_LEN(MAX_FDS * struct.calcsize("i"))
        reply, ancillary, flags, _ = self._connection.recvmsg(
            1 + MAX_NAME, room, socket.MSG_CMSG_CLOEXEC
        )
        fds = rights.received(ancillary)
        if flags & socket.MSG_CTRUNC:
            rights.close_all(fds)
            raise ControlError(
                f"cannot open all that the keeper at {self.path} holds: too many open files",
                means="the keeper goes on holding it",
                do=_MORE_FILES,
            )
        if not reply:
            raise EOFError
        return reply, fds

    def _collect(self) -> list[tuple[str, list[int]]]:
        """Fetch all that the keeper holds, one message after the other."""
        found: list[tuple[str, list[int]]] = []
        try:
            while True:
                label, fds = self._exchange(b"N")
                if label == b".":
                    break
                found.append((os.fsdecode(label[1:]), fds))
        except (ConnectionError, EOFError):
            pass  # the keeper is dead, and nobody else may have what has arrived
        except (ControlError, OSError):
            rights.close_all(fd for _, fds in found for fd in fds)
            raise
        return found

    def _lost(self, how: str) -> ControlError:
        # Shut down, but not closed: the event loop that watches the descriptor sees its end.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        return ControlError(
            f"the keeper (pid {self.pid}) {how}",
            means=_NOT_NOW,
            do="start another one and have it keep everything",
        )


def _clear(path: Path) -> None:
    try:
        pid = unix_node.clear(path, socket.SOCK_SEQPACKET)
    except FileExistsError as error:
        raise _cannot("start", path, error) from None
    if pid is not None:
        raise _cannot("start", path, "a process listens there already")


# --- Its process ---------------------------------------------------------------------------------


def _spawn(path: Path, listener: socket.socket) -> int:
    """Start the program, which forks; return its first process, which ends and must be reaped."""
    directory = str(Path(__file__).parents[2] / "programs")
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-E", "-c", _PROGRAM, directory, str(path)],
        {"LC_ALL": "C"} | {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"},
        file_actions=silent_actions([listener.fileno()]),
        setpgroup=0,
        setsigdef=signal.valid_signals(),
        # What is blocked stays so over fork and exec: no signal but KILL and STOP ends it, from its
        # first instruction on.
        setsigmask=signal.valid_signals(),
    )


def _pid_of_ours(connection: socket.socket) -> int:
    """Return the pid of the process that listens there: struct ucred, unix(7).

    Raises PermissionError if it is neither our user's nor root's.
    """
    pid, uid = unix_node.credentials(connection)
    if uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, f"it belongs to user {uid}")
    return pid


def _has_ended(pidfd: int, seconds: float) -> bool:
    """Wait for the end of a process: its descriptors are closed then (do_exit() in Linux)."""
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    return bool(watch.poll(seconds * 1000))


def _cannot(verb: str, path: Path, why: Exception | str, pid: int = 0) -> ControlError:
    do = _OTHER_PATH
    if isinstance(why, TimeoutError):
        why, do = "it does not answer", f'end it ("kill -9 {pid}"), with all that only it holds'
    elif isinstance(why, OSError) and why.strerror:
        why = why.strerror
    means = _NOT_NOW if verb == "start" else "it keeps what it has; nothing was started"
    what = f"cannot {verb} a keeper at {path}: {str(why) or 'it ended at once'}"
    return ControlError(what, means=means, do=do)
