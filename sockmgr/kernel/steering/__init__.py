"""Steering: pools of queues at one address, and the programs that choose among the queues."""

from sockmgr.kernel.steering.admission import (
    admit_handshakes,
    refuse_handshakes,
    reject_handshakes,
    restore_handshakes,
    shorten_handshakes,
)
from sockmgr.kernel.steering.calling import Way, has_come, listens_at
from sockmgr.kernel.steering.flow import Flow
from sockmgr.kernel.steering.grace import settle
from sockmgr.kernel.steering.members import cannot_grow, twin
from sockmgr.kernel.steering.pool import Choice, Pool

__all__ = [
    "Choice",
    "Flow",
    "Pool",
    "Way",
    "admit_handshakes",
    "cannot_grow",
    "has_come",
    "listens_at",
    "refuse_handshakes",
    "reject_handshakes",
    "restore_handshakes",
    "settle",
    "shorten_handshakes",
    "twin",
]
