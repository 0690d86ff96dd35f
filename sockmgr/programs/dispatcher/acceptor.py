"""Accepts connections of one listener, a bounded number at a time, without ever blocking."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

# What accept(2) fails with when the next connection broke before it was accepted: take another.
_BROKEN = frozenset({
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN,
    errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
    errno.ETIMEDOUT,
})  # fmt: skip


class Accepted(NamedTuple):
    """The fds of new connections, ours to close; `error` if one waits and cannot be accepted."""

    fds: list[int]
    error: OSError | None = None


def accept(listener: socket.socket, limit: int) -> Accepted:
    """Accept at most `limit` connections from a listener that does not block."""
    fds: list[int] = []
    for _ in range(limit):
        try:
            # socket.accept() makes a socket object that we would throw away. It takes 10 of 12
            # microseconds, as much as everything else that is done for a connection.
            fds.append(listener._accept()[0])  # type: ignore[attr-defined]
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno not in _BROKEN:
                return Accepted(fds, error)
    return Accepted(fds)
