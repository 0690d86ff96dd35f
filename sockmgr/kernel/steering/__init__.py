"""Steering: pools of queues on one address, and the programs that choose among them."""

from sockmgr.kernel.steering.pool import (
    Choice,
    Pool,
    admit_handshakes,
    refuse_handshakes,
    restore_handshakes,
    settle,
    shorten_handshakes,
)

__all__ = [
    "Choice",
    "Pool",
    "admit_handshakes",
    "refuse_handshakes",
    "restore_handshakes",
    "settle",
    "shorten_handshakes",
]
