"""What a Python program may want of its manager: its sockets, and to say how it is.

    from sockmgr import worker

    (http,) = worker.listeners("http")
    ...
    worker.ready()

These are systemd's protocols (sd_listen_fds(3), sd_notify(3)), so the same program works under
systemd alone. Where nobody listens, each call does nothing and says so. This package imports
nothing else of sockmgr, and only a little of the standard library.
"""

from sockmgr.worker.heartbeat import watchdog
from sockmgr.worker.inherited import listeners
from sockmgr.worker.leaving import draining, until_draining
from sockmgr.worker.notify import ready, status, stopping

__all__ = [
    "draining", "listeners", "ready", "status", "stopping", "until_draining", "watchdog",
]  # fmt: skip
