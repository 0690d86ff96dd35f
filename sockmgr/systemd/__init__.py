"""Our side of systemd: what it passed, what it is told, and what it keeps for the next manager."""

from sockmgr.systemd.notifier import Notifier
from sockmgr.systemd.passed import passed_descriptors, passed_sockets
from sockmgr.systemd.store import FdStore
from sockmgr.systemd.unit import Ending, ending, fd_store_max

__all__ = [
    "Ending",
    "FdStore",
    "Notifier",
    "ending",
    "fd_store_max",
    "passed_descriptors",
    "passed_sockets",
]
