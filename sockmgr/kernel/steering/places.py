"""Find the place of each queue in its group by a packet of our own. Keeps nothing."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence

from sockmgr.kernel.steering import classic
from sockmgr.kernel.steering.flow import Flow

_MEMINFO = 55  # SO_MEMINFO


def find(members: Sequence[socket.socket], place: int, program: classic.Program) -> int | None:
    """Return which of `members` has this `place` in the kernel; None if no packet arrived.

    `program` steers all other packets, meanwhile and afterwards. Raises OSError if only root may
    attach the filter that drops, or if this host does not have the address now.
    """
    first = members[0]
    host, port, *scope = first.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    for _ in range(5):
        # Bound without SO_REUSEADDR, so that no other socket has its port.
        with socket.socket(first.family, first.type) as probe:
            probe.setblocking(False)
            probe.bind((host, 0, *scope))
            source = probe.getsockname()[1]
            for member in members:
                classic.put_filter(member, classic.dropping(source))
            classic.steer(first, classic.exception(Flow.of(probe, host), place, program))
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
    """Return which members dropped a packet; wait for it, since ksoftirqd may deliver it late."""
    deadline = time.monotonic() + 0.02
    while True:
        hits = [i for i, member in enumerate(members) if _drops(member) != before[i]]
        if hits or time.monotonic() > deadline:
            return hits
        os.sched_yield()


def _drops(sock: socket.socket) -> int:
    meminfo = sock.getsockopt(socket.SOL_SOCKET, _MEMINFO, 36)
    return int(struct.unpack_from("=I", meminfo, 32)[0])  # SK_MEMINFO_DROPS
