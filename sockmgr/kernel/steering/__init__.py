"""Steering: pools of queues on one address, and the programs that choose among them."""

from sockmgr.kernel.steering.admission import (
    admit_handshakes,
    refuse_handshakes,
    reject_handshakes,
    restore_handshakes,
    shorten_handshakes,
)
from sockmgr.kernel.steering.pool import Choice, Pool, cannot_grow, settle, twin

__all__ = [
    "Choice",
    "Pool",
    "admit_handshakes",
    "cannot_grow",
    "refuse_handshakes",
    "reject_handshakes",
    "restore_handshakes",
    "settle",
    "shorten_handshakes",
    "twin",
]
