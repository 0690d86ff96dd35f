"""The keys that say how much a worker may use up before it is recycled: fleet/recycling."""

from __future__ import annotations

from sockmgr.config import values
from sockmgr.config.shape import TIMEOUT, Key, integer

LIMITS = {
    "max_age": Key(
        TIMEOUT,
        "Recycle a worker that has served this long, or up to a tenth less: successor first, one "
        "at a time.",
    ),
    "max_rss": Key(values.MEMORY, "Recycle one whose processes have more than this in memory."),
    "max_requests": Key(
        integer(1, 10**12),
        "Recycle a worker of `app` that has had so many requests, or up to a tenth fewer.",
    ),
    "max_cpu_time": Key(
        TIMEOUT, "Recycle one whose processes have used so much CPU, or up to a tenth less."
    ),
}
