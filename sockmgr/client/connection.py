"""One connection to a control socket: sends and receives whole messages until a deadline.

Owns nothing. An error says whether the manager may have heard of the operation that was asked for.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from sockmgr.api import varlink, wire
from sockmgr.errors import ControlError, SockmgrError
from sockmgr.kernel.unix_node import credentials

LONGEST_REPLY = 16 * 1024 * 1024
_WHO = "the user it runs as, a member of a group under [control] in its config, or root"

_Ask = TypeVar("_Ask", bound=varlink.Ask)
_Answer = TypeVar("_Answer", bound=varlink.Answer)


class NoManagerError(ControlError):
    """No manager listens at the path."""


class ForbiddenError(ControlError):
    """A manager listens at the path, but this user may not connect, or not ask that."""


class StillWaitingError(ControlError):
    """The answer did not come in time; an operation that was asked for goes on."""


class NotAskedError(ControlError):
    """A manager listens at the path, but the connection failed before it was asked anything."""


class LostError(ControlError):
    """The connection ended before the answer."""


class Connection:
    """One connection to the manager at `path`. Borrows the socket."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._socket = sock
        self._path = path
        self._received = bytearray()
        self._deadline: float | None = None
        self.continues = False  # whether the last reply announced another one
        self.changes = False  # whether the connection is for an operation that changes something
        self.asked = False  # whether the manager may have heard of that operation

    @property
    def peer(self) -> int:
        """The pid, in our PID namespace, of the process that called listen(2).

        See SO_PEERCRED in unix(7).
        """
        return credentials(self._socket)[0]

    def extend(self, timeout: float | None) -> None:
        """Set the deadline to `timeout` seconds from now, or to none."""
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def connect(self) -> None:
        """Connect before the deadline; raise NoManagerError, ForbiddenError or another error."""
        try:
            # connect(2) waits for room in the backlog for SO_SNDTIMEO (unix(7)), but only on a
            # blocking socket. settimeout() makes it non-blocking, and connect(2) fails at once.
            if (left := self._left()) is not None:
                limit = struct.pack("ll", int(left), int(left % 1 * 1e6))
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.connect(os.fspath(self._path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise no_manager(f"at {self._path}", None, self._path) from None
        except PermissionError:
            raise ForbiddenError(
                f"user {os.geteuid()} may not talk to the manager at {self._path}",
                means="it was not asked",
                do=f"run this as {_WHO}",
            ) from None
        except OSError as error:
            if error.errno is None:  # Python's own error for a path that is too long
                raise NoManagerError(
                    f"no manager can be at {self._path}: a unix path has at most 107 bytes",
                    do="say with --control where it is",
                ) from None
            raise self._lost(error) from error

    def converse(self, method: varlink.Method[_Ask, _Answer], ask: _Ask) -> _Answer:
        self.send(ask)
        return self.receive(method.reply)

    def send(self, ask: varlink.Ask, *, more: bool | None = None) -> None:
        """Call the method whose parameters `ask` has."""
        message = wire.write_call(ask, more=more)
        if len(message) > varlink.LONGEST_CALL:
            raise ControlError(
                f"{len(message)} bytes are more than the manager at {self._path} reads at once",
                means="it was not asked",
            )
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the manager has hung up, but may have sent the reason: receive() reads it
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, kind: type[_Answer]) -> _Answer:
        """Return the next reply; raise the error that the manager replied with."""
        message = self._message()
        try:
            reply = msgspec.json.decode(message, type=wire.Reply)
            if reply.error is not None:
                raise self._refused(reply)
            self.continues = bool(reply.continues)
            return msgspec.json.decode(reply.parameters, type=kind)
        except wire.UNREADABLE as error:
            raise ControlError(
                f"the answer from {self._path} cannot be understood: {error}",
                do="is it a sockmgr of another version? see its pid in `ss -xlp`",
            ) from error

    def _message(self) -> bytes:
        while (end := self._received.find(b"\0")) < 0:
            try:
                self._socket.settimeout(self._left())
                data = self._socket.recv(65536)
            except OSError as error:
                raise self._lost(error) from error
            if not data:
                raise self._lost(ConnectionResetError("it hung up"))
            self._received += data
            if len(self._received) > LONGEST_REPLY:
                raise self._lost(ConnectionAbortedError("its answer has no end"))
        message = bytes(self._received[:end])
        del self._received[: end + 1]
        return message

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _lost(self, error: OSError) -> ControlError:
        # connect(2) fails with EAGAIN when SO_SNDTIMEO has passed.
        in_time = not isinstance(error, TimeoutError | BlockingIOError)
        what = f"the manager at {self._path} did not answer in time"
        if in_time:
            what = f"no answer from the manager at {self._path}: {error.strerror or error}"
        if self.changes and not self.asked:
            return NotAskedError(
                what,
                means="it was asked nothing, so nothing changes",
                do="see its log, and whether it is stopped or hangs: its pid is in `ss -xlp`",
            )
        if in_time:
            means = "what it was asked to do may have happened"
            do = 'see "sockmgr status" and the log of the manager'
            return LostError(what, means=means if self.changes else "", do=do)
        if self.changes:
            do = 'see "sockmgr status", or wait longer with --timeout'
            return StillWaitingError(what, means="what it was asked to do goes on", do=do)
        return StillWaitingError(what, do="wait longer with --timeout, or see the manager's log")

    def _refused(self, reply: wire.Reply) -> SockmgrError:
        name = reply.error or ""
        if kind := wire.ERRORS.get(name):
            failure = msgspec.json.decode(reply.parameters, type=wire.Failure)
            return kind(failure.what, means=failure.means, do=failure.do)
        if name == f"{varlink.SERVICE}.PermissionDenied":
            return ForbiddenError(
                f"the manager at {self._path} does not talk to user {os.geteuid()} about that",
                do=f"run this as {_WHO}",
            )
        return ControlError(
            f"the manager at {self._path} refused: {name} {bytes(reply.parameters).decode()}",
            do="is it a sockmgr of another version?",
        )


def no_manager(where: str, name: str | None, asked: Path | None = None) -> NoManagerError:
    """Return the error that no manager answers, with the managers that listen elsewhere.

    These are the managers called `name` (None: all) in the usual places, or the one whose path was
    `asked`, if it is alive but this user cannot reach it.
    """
    from sockmgr.client.elsewhere import elsewhere  # noqa: PLC0415 - only needed for this error

    there = list(elsewhere(name, asked))
    return NoManagerError(
        f"no manager answers {where}",
        means="; ".join(f"{one.what}: {one.do}" for one in there),
        do='start one with "sockmgr run", or say where it is with --control' if not there else "",
    )
