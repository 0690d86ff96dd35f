"""Who asked for what is being done now, for people: the name of a user or a signal, or systemd.

Each request is a task of its own, so each has a value of its own. "" stands for the manager itself.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

from sockmgr.kernel.accounts import user_name
from sockmgr.kernel.cgroup import own_unit
from sockmgr.kernel.procfs import member

# Not an argument of all that leads from a request to its rollout, most of which has no use for it.
ASKER: ContextVar[str] = ContextVar("asker", default="")


def name_of(pid: int, uid: int) -> str:
    """Return who a client is; that of an ExecReload= has the user of the unit, but is systemd's."""
    client, unit = member(pid), own_unit()
    ours = client is not None and client.parent == os.getppid()
    return "systemd" if ours and unit and unit.has(pid) else user_name(uid)
