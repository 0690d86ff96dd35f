"""The roles of descriptors that an earlier version stored under one name of a worker, `web@7.2`.

fstat(2) and the state show which descriptor is which; today each has a name of its own.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Sequence

from sockmgr.manager.workers.survivor import CHANNEL, CHANNEL_OF_WORKER, OUTPUT, PIDFD


def roles(fds: Iterable[int], channel: Sequence[int]) -> dict[str, int]:
    """Return these descriptors by their roles; close those whose role cannot be found.

    `channel` has the inodes of the two ends of the worker's channel, the manager's end first.
    """
    # Two ends of one socketpair look alike, so the state has their inodes.
    known = dict(zip(channel, (CHANNEL, CHANNEL_OF_WORKER), strict=False))
    found: dict[str, int] = {}
    for fd in fds:
        role = known.get(os.fstat(fd).st_ino, "") if _is_channel(fd) else _role(fd)
        if role and role not in found:
            found[role] = fd
        else:
            os.close(fd)
    return found


def _role(fd: int) -> str:
    mode = os.fstat(fd).st_mode
    # The worker prints to a pipe, or to a stream socket of the journal. A pidfd is neither.
    return OUTPUT if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else PIDFD


def _is_channel(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.type == socket.SOCK_SEQPACKET
