"""What a Python program may want of its manager: to get its sockets, and to report its state::

    from sockmgr import worker

    (http,) = worker.listeners("http")
    ...
    worker.ready()

The protocols are systemd's (sd_listen_fds(3), sd_notify(3)), so the same program works under
systemd alone. Without a manager, each call does nothing, and its result says so. This package
imports nothing else of sockmgr, and only a little of the standard library.
"""

from sockmgr.worker.heartbeat import watchdog
from sockmgr.worker.inherited import listeners
from sockmgr.worker.leaving import draining, until_draining
from sockmgr.worker.notify import ready, status, stopping

__all__ = [
    "draining", "listeners", "ready", "status", "stopping", "until_draining", "watchdog",
]  # fmt: skip
