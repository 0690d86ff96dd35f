"""Our side of systemd: what it passed, what it is told, and what it keeps for the next manager."""

from sockmgr.systemd.notifier import Notifier
from sockmgr.systemd.passed import (
    START_DIRECTLY,
    passed_descriptors,
    passed_sockets,
    passed_to_another,
)
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import Ending, ending, fd_store_max

__all__ = [
    "START_DIRECTLY",
    "Ending",
    "FdStore",
    "Notifier",
    "ending",
    "fd_store_max",
    "passed_descriptors",
    "passed_sockets",
    "passed_to_another",
]
