"""Our side of systemd: what it passed, what it is told, and what it keeps for the next manager."""

from sockmgr.systemd.notifier import Notifier
from sockmgr.systemd.passed import passed_descriptors, passed_sockets

__all__ = ["Notifier", "passed_descriptors", "passed_sockets"]
