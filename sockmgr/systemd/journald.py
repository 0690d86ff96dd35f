"""Write to systemd's journal, by entries or by streams for workers, and read lines from it.

Only `lines_before` waits for journald; call it in a thread of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sockmgr.kernel.closing import closed_on_error
from sockmgr.systemd import protocol
from sockmgr.terminal.pieces import Piece, whole

SOCKET = "/run/systemd/journal/socket"
PLACES = ("/run/log/journal", "/var/log/journal")
# PID 1 owns the socket, which so outlives a journald, but not a stop of its .socket unit.
_GONE = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)


def is_stderr(environ: Mapping[str, str] = os.environ, fd: int = 2) -> bool:
    """Return whether `fd` goes to the journal: systemd.exec(5), $JOURNAL_STREAM."""
    return environ.get("JOURNAL_STREAM") == name_of(fd)


def name_of(fd: int) -> str:
    """Return the value that $JOURNAL_STREAM has if this descriptor is a stream to the journal."""
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}"


class Entries:
    """Sends whole entries to journald, a datagram each. Owns a socket."""

    def __init__(self, path: str = SOCKET) -> None:
        """Raise OSError if there is no journald."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with closed_on_error(self._socket):
            self._socket.connect(path)

    def fileno(self) -> int:
        """Return the descriptor, borrowed, to wait until there is room for an entry."""
        return self._socket.fileno()

    def send(self, data: bytes) -> bool:
        """Send an entry; return False if there is no room now; raise OSError if it is lost."""
        try:
            return self._send(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        self._socket.connect(self._path)
        return self._send(data)

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> bool:
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        return True


# --- Streams -------------------------------------------------------------------------------------


def say(fd: int, line: str) -> bool:
    """Write a line of our own to a stream; return whether there was room for it."""
    data = f"{line}\n".encode(errors="replace")
    # The worker has the same open file description, so O_NONBLOCK would change it for both.
    with socket.socket(fileno=os.dup(fd)) as stream:
        try:
            return stream.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(data)
        except OSError:  # full, or journald has closed it
            return False


def has_been_read(fd: int) -> bool:
    """Return whether journald has taken all that was written to a stream: unix(7), SIOCOUTQ."""
    with contextlib.suppress(OSError):
        unread = fcntl.ioctl(fd, termios.TIOCOUTQ, struct.pack("i", 0))
        return struct.unpack("i", unread) == (0,)
    return True


# --- Back ----------------------------------------------------------------------------------------


def is_readable() -> bool:
    """Return whether we can: there is a journal here that we may read, and python-systemd."""
    if protocol.journal_reader() is None:
        return False
    found = [path for place in PLACES for path in Path(place).glob("*/*.journal")]
    return any(os.access(path, os.R_OK) for path in found)


def lines_before(
    said: str, identifier: str, *, at: float, number: int, timeout: float
) -> list[str] | None:
    """Return the last `number` lines of a stream before the line `said`, which we wrote to it.

    Waits until `said` is in the journal, since journald keeps the order within one stream. None if
    it is not there within `timeout` seconds. `at` is an instant of CLOCK_MONOTONIC before we wrote
    it. Raises OSError. To be called only if `is_readable`.
    """
    end = time.monotonic() + timeout
    open_reader: Any = protocol.journal_reader()
    with open_reader(converters={"_STREAM_ID": bytes.decode}) as reader:
        reader.this_boot()
        # Any process may use this identifier, but no other one has our pid.
        reader.add_match(SYSLOG_IDENTIFIER=identifier, MESSAGE=said, _PID=str(os.getpid()))
        while (entry := _newest(reader, at)) is None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            reader.wait(left)
        reader.flush_matches()
        reader.add_match(_STREAM_ID=entry["_STREAM_ID"])
        reader.seek_cursor(entry["__CURSOR"])
        reader.get_next()
        return _lines_back(reader, number)


def _newest(reader: Any, at: float) -> Any:
    reader.seek_tail()
    entry = reader.get_previous()
    if not entry or entry["__MONOTONIC_TIMESTAMP"].timestamp.total_seconds() < at:
        return None
    return entry


def _lines_back(reader: Any, number: int) -> list[str]:
    pieces: list[Piece] = []
    while len(pieces) < number and (entry := reader.get_previous()):
        if entry.get("_PID") != os.getpid():
            text = entry.get("MESSAGE", "")
            text = text if isinstance(text, str) else text.decode(errors="backslashreplace")
            # A line that is longer than LineMax= (journald.conf(5)) becomes several entries.
            pieces.append(Piece(text, entry.get("_LINE_BREAK") == "line-max"))
    return whole(pieces[::-1])
