"""What a service and systemd say to each other: by python-systemd if it is installed, else by us.

The protocols are stable and documented: sd_notify(3), sd_listen_fds(3), and that of journald's
streams (https://systemd.io/JOURNAL_NATIVE_PROTOCOL, sd_journal_stream_fd(3)). python-systemd has
no wheels, so without a compiler it is there only as a package of the distribution.
"""

from __future__ import annotations

import array
import errno
import functools
import importlib
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

from sockmgr.api.records import EventKind
from sockmgr.log import Log

log = Log("sockmgr")

FIRST = 3  # SD_LISTEN_FDS_START
STREAMS = "/run/systemd/journal/stdout"
_INFO = 6  # LOG_INFO, syslog(3)
_ROOM = 8 << 20  # what libsystemd asks for; the kernel grants less: net.core.wmem_max


def notify(message: str, fds: Sequence[int]) -> bool:
    """Send a message to NOTIFY_SOCKET, with `fds`, which are borrowed; False if it is not set.

    Raises OSError. Waits while systemd's queue is full.
    """
    if daemon := _python_systemd("daemon"):
        return bool(daemon.notify(message, fds=list(fds)))
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    if path[0] not in "/@":  # vsock: of a whole machine, not of a service
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        # An @ stands for the NUL with which an abstract name begins: unix(7).
        address = "\0" + path[1:] if path[0] == "@" else path
        sender.sendmsg([message.encode(errors="surrogateescape")], rights, 0, address)
    return True


class SystemdSocket:
    """Sends messages to NOTIFY_SOCKET; if they cannot be sent, the manager goes on without."""

    def __init__(self) -> None:
        self._broken = False

    def send(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Send one message, with `fds`, which are borrowed; return whether it was sent."""
        try:
            sent = notify(message, fds)
        except OSError as error:
            if not self._broken:
                log.warning(EventKind.SYSTEMD_CANNOT_BE_TOLD, error=error.strerror)
            sent = False
        self._broken = not sent
        return sent

    def wait_until_read(self, timeout: float) -> bool:
        """Wait until systemd has read all earlier messages: sd_notify_barrier(3); return if so."""
        read_end, write_end = os.pipe()
        try:
            try:
                sent = self.send("BARRIER=1", [write_end])  # alone, and with one descriptor
            finally:
                os.close(write_end)
            poll = select.poll()
            poll.register(read_end, 0)  # POLLHUP comes when systemd closes its copy of write_end
            return sent and bool(poll.poll(timeout * 1000))
        finally:
            os.close(read_end)


def listen_fds() -> dict[int, str]:
    """Return the name of each descriptor that LISTEN_FDS tells of, a number, to this process.

    Raises OSError (EINVAL) if there are not as many names: sd_listen_fds_with_names(3).
    """
    if daemon := _python_systemd("daemon"):
        names: dict[int, str] = daemon.listen_fds_with_names(unset_environment=False)
        return names
    count = int(os.environ["LISTEN_FDS"])
    told = os.environ.get("LISTEN_FDNAMES")
    listed = ["unknown"] * count if told is None else told.split(":") if told else []
    if len(listed) != count:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return dict(enumerate(listed, start=FIRST))


def open_stream(identifier: str) -> int:
    """Return a descriptor, the caller's own; each line that is written to it is an entry.

    A line may begin with its priority, as in sd-daemon(3). Raises OSError. Waits only if journald
    hangs and its queue is full.
    """
    if journal := _python_systemd("journal"):
        fd: int = journal.stream_fd(identifier, _INFO, True)
        return fd
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(STREAMS)
        stream.shutdown(socket.SHUT_RD)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        # No unit of our own choice; priorities in the lines; no copies to syslog, kmsg and console.
        head = (identifier, "", str(_INFO), "1", "0", "0", "0")
        stream.sendall("".join(f"{line}\n" for line in head).encode())
        return stream.detach()


def journal_reader() -> Any | None:
    """Return the class by which python-systemd reads the journal; None without python-systemd."""
    journal = _python_systemd("journal")
    return journal and journal.Reader


@functools.cache
def _python_systemd(name: str) -> Any | None:
    """Return a module of python-systemd, or None; imported late, because few managers need it."""
    try:
        return importlib.import_module(f"systemd.{name}")
    except ImportError:
        return None
