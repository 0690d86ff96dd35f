"""Carries connections to one worker, and its reports back: docs/dispatch-protocol.md.

Owns both ends of one SOCK_SEQPACKET pair: ours, and a copy of the worker's. By the copy we can see
and take back connections that the worker has not taken, and none is reset when the worker dies.
Which worker gets a connection, and whether a report is believed, is decided elsewhere.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Sequence
from typing import NamedTuple

from sockmgr.kernel import rights
from sockmgr.programs.dispatcher.ledger import Forged, Report

BATCH = 64  # connections in one message; the kernel allows 253 (SCM_MAX_FD, unix(7))
MAX_LISTENERS = 255  # a byte tells which one a connection came from; 255 is that of a question

_REPORT = struct.Struct("=QQQQ")
_QUESTION = struct.Struct("=BQ")
_ASKED = 255
_INT = struct.Struct("=i")
_SCM_PIDFD = 4  # linux/socket.h: a pidfd of the sender, Linux 6.5
_ROOM = socket.CMSG_SPACE(BATCH * _INT.size) + 256  # and what the worker may have asked for as well

QUESTION = _QUESTION.size


class Passed(NamedTuple):
    """A connection that was accepted: its fd, and the number of its listener for the worker.

    `told` is a memfd with what another worker told of it, -1 for one that nobody had before.
    """

    fd: int
    listener: int
    told: int = -1


class TakenBack(NamedTuple):
    """One message out of a channel: connections, ours to close, and how many were `lost` of it."""

    passed: Sequence[Passed] = ()
    lost: int = 0


class Channel:
    """Both ends of a channel, `ours` and `theirs`; who adopts() it needs both.

    Whoever has duplicates of both has the same channel: its `id` is the inode of our end.
    """

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        """Own two sockets; use create() and adopt()."""
        self._ours, self._theirs = ours, theirs
        self.is_new = False
        self.is_told = False  # the worker knows what is told of a connection that another one had
        self.id = os.fstat(ours.fileno()).st_ino
        # The worker has the same description, and may make it block: then so would we.
        self._ours.setblocking(False)

    @classmethod
    def create(cls) -> Channel:
        """Make a new one; raises OSError. The worker inherits `theirs`."""
        made = cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        made.is_new = True
        return made

    @classmethod
    def adopt(cls, ours: int, theirs: int) -> Channel:
        """Own the descriptors of a channel that somebody else made."""
        return cls(
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=ours),
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=theirs),
        )

    def fileno(self) -> int:
        """Return our end, borrowed: readable at a report, writable when there is room."""
        return self._ours.fileno()

    @property
    def theirs(self) -> int:
        """The copy of the worker's end, borrowed."""
        return self._theirs.fileno()

    @property
    def untaken(self) -> int:
        """How many bytes wait for the worker: one for each connection, QUESTION for a question."""
        answer = bytearray(_INT.size)
        fcntl.ioctl(self._theirs, termios.FIONREAD, answer)
        return int(_INT.unpack(answer)[0])

    def send(self, fds: Sequence[int], listeners: bytes) -> None:
        """Pass at most BATCH connections, with the number of each one's listener; all or none.

        One descriptor more tells of the last of them, for a worker that knows it (moves.py).
        The caller still owns `fds`. Raises BlockingIOError if the channel is full, and OSError:
        ETOOMANYREFS if too many descriptors of our user are on their way, EPIPE if the worker
        reads no more.
        """
        rights = array.array("i", fds)
        self._ours.sendmsg([listeners], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def ask(self, question: int) -> None:
        """Ask for a report; it is answered when all that was sent before has been taken."""
        self._ours.send(_QUESTION.pack(_ASKED, question))

    def receive(self) -> Report | None:
        """Return what the worker said, or None if it said nothing; raises Forged.

        One report a call: a worker that floods us takes its turn, as everybody does.
        """
        try:
            # Without room for descriptors: the kernel drops those that somebody passes us.
            data = self._ours.recv(_REPORT.size + 1)
        except BlockingIOError:
            return None
        except OSError as error:  # ECONNRESET: nobody has the other end, or read all of it
            raise Forged(f"its channel broke: {(error.strerror or '').lower()}") from error
        if not data:
            raise Forged("it closed its channel")
        if len(data) != _REPORT.size:
            raise Forged(f"it sent what is no report: {data[: _REPORT.size]!r}")
        return Report._make(_REPORT.unpack(data))

    def take_back(self) -> TakenBack | None:
        """Return the connections of the oldest message in the channel, of a question none.

        None if there is no message.
        """
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, ancillary, _, _ = self._theirs.recvmsg(BATCH, _ROOM, flags)
        except BlockingIOError:
            return None
        fds = rights.received(ancillary)
        # The worker, whose end it is as well, may have set SO_PASSPIDFD.
        rights.close_all(rights.received(ancillary, _SCM_PIDFD))
        if not data:  # the worker shut it down
            return None
        if data[0] == _ASKED:
            return TakenBack()
        passed = [Passed(fd, listener) for fd, listener in zip(fds, data, strict=False)]
        if len(fds) == len(data) + 1:
            passed[-1] = Passed(fds[-2], data[-1], fds[-1])
        else:
            rights.close_all(fds[len(data) :])
        return TakenBack(passed, len(data) - len(passed))

    def close(self) -> None:
        """Close both ends; connections that are in the channel are reset."""
        self._ours.close()
        self._theirs.close()
