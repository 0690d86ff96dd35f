"""What comes by a move queue, as whoever takes it looks at it: a worker, or the dispatcher.

Nobody has to believe the giver: what a message says could be forged, what the kernel says cannot.
The dispatcher imports this as well, so it needs nothing but what is light in the standard library.
"""

from __future__ import annotations

import os
import socket
from typing import Any

SIZE = 4096  # bytes of the longest message
ROOM = 8  # descriptors that must be free before a message is read: another thread may take some
GONE = "its client is gone"  # as clients may be at any time

_ANY = ("0.0.0.0", "::")  # noqa: S104 - to be compared with


def flaw(sock: socket.socket) -> str:
    """Return why this is no connection; "" if it is one."""
    if sock.type != socket.SOCK_STREAM or sock.family == socket.AF_UNSPEC:
        return "it is no stream socket"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it is a listening socket"
    try:
        sock.getpeername()
    except OSError:
        return GONE
    return ""


def came_to(own: Any, listener: Any) -> bool:
    """Return whether a connection can have come to a listener, by what getsockname(2) says of both.

    Both are of one family. A connection to a wildcard has the address that its client asked for.
    """
    if not isinstance(own, tuple):  # a unix socket has the path of its listener
        return bool(own) and own == listener
    return own[1] == listener[1] and listener[0] in (own[0], *_ANY)


def has_room(fd: int) -> bool:
    """Return whether ROOM descriptors are free: the kernel drops one that finds no place, unix(7).

    `fd` is any open descriptor, borrowed.
    """
    held: list[int] = []
    try:
        while len(held) < ROOM:
            held.append(os.dup(fd))
    except OSError:
        return False
    finally:
        for each in held:
            os.close(each)
    return True
