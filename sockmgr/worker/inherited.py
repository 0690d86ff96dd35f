"""The listening sockets that this process was started with, by the protocol of sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket

FIRST_FD = 3  # SD_LISTEN_FDS_START
UNNAMED = "unknown"  # what sd_listen_fds_with_names(3) calls a socket without a name

_taken: dict[int, list[tuple[str, socket.socket]]] = {}  # by pid: a fork must take its own


def listeners(name: str | None = None) -> list[socket.socket]:
    """Return the sockets that were passed, in order; with `name`, only those with this name.

    The list is empty if none were passed. The caller owns the sockets, which are close-on-exec from
    now on. A second call returns the same objects. Raises ValueError if LISTEN_FDS announces a
    descriptor that is no socket.
    """
    found = _taken.get(os.getpid())
    if found is None:
        found = _taken[os.getpid()] = [
            (label, adopt(fd)) for fd, label in enumerate(_names(), FIRST_FD)
        ]
    return [sock for label, sock in found if name in (None, label)]


def adopt(fd: int) -> socket.socket:
    """Return the socket `fd`, owned by the caller and close-on-exec; raises ValueError."""
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise ValueError(
            f"descriptor {fd} was announced as a socket, but is none: {error.strerror}; whatever "
            "started this program must pass the sockets on"
        ) from None


def _names() -> list[str]:
    """Return a name for each socket that was passed to this process.

    A parent that knows that a wrapper runs the program leaves LISTEN_PID out. If it is set, but to
    another pid, the sockets were passed to another process.
    """
    pid, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS", "0")
    if pid not in (None, str(os.getpid())):
        return []
    # By default a process can have at most a million: fs.nr_open, proc_sys_fs(5).
    if not (count.isascii() and count.isdecimal() and len(count) <= 7):
        raise ValueError(f"LISTEN_FDS={count!r} is not a number of sockets")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") if int(count) else []
    named = [name or UNNAMED for name in names[: int(count)]]
    return named + [UNNAMED] * (int(count) - len(named))
