"""Find out which place a queue has in its group, by asking the kernel. Keeps nothing."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence

from sockmgr.kernel.steering import classic

_MEMINFO = 55  # SO_MEMINFO


def find(members: Sequence[socket.socket], place: int, program: classic.Program) -> int | None:
    """Return which of `members` the kernel has at `place`; None if no packet arrived.

    Meanwhile and afterwards `program` steers all else. Raises OSError where only root may attach
    the filter that drops, or where the address is not one of this host now.
    """
    first = members[0]
    host, port, *scope = first.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    for _ in range(5):
        # Bound alone, so that its port belongs to this probe and nobody else.
        with socket.socket(first.family, first.type) as probe:
            probe.setblocking(False)
            probe.bind((host, 0, *scope))
            source = probe.getsockname()[1]
            for member in members:
                classic.put_filter(member, classic.dropping(source))
            classic.steer(first, classic.exception(first.family, source, place, program))
            before = [_drops(member) for member in members]
            try:
                _call(probe, (host, port, *scope))
                hits = _risen(members, before)
            finally:
                classic.steer(first, program)
                for member in members:
                    classic.remove_filter(member)
        if len(hits) == 1:
            return hits[0]
    return None


def _call(probe: socket.socket, target: tuple[object, ...]) -> None:
    try:
        probe.connect(target)
    except BlockingIOError:
        return
    probe.send(b"\0")  # UDP


def _risen(members: Sequence[socket.socket], before: Sequence[int]) -> list[int]:
    """Wait for a drop: loopback delivers within connect(2), unless ksoftirqd has to."""
    deadline = time.monotonic() + 0.02
    while True:
        hits = [i for i, member in enumerate(members) if _drops(member) != before[i]]
        if hits or time.monotonic() > deadline:
            return hits
        os.sched_yield()


def _drops(sock: socket.socket) -> int:
    meminfo = sock.getsockopt(socket.SOL_SOCKET, _MEMINFO, 36)
    return int(struct.unpack_from("=I", meminfo, 32)[0])  # SK_MEMINFO_DROPS
