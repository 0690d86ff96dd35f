"""Descriptors that arrive with a message on a unix socket: SCM_RIGHTS, unix(7). Keeps none.

Not socket.recv_fds(): up to Python 3.11 it ignores its flags, so that children inherit what comes.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable

_Ancillary = Iterable[tuple[int, int, bytes]]


def received(ancillary: _Ancillary, kind: int = socket.SCM_RIGHTS) -> list[int]:
    """Return the descriptors in the ancillary data of recvmsg(2); the caller owns them."""
    fds = array.array("i")
    for level, of, payload in ancillary:
        if (level, of) == (socket.SOL_SOCKET, kind):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return fds.tolist()


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that were passed on, or that nobody can use."""
    for fd in fds:
        os.close(fd)
