"""The keys that say how much a worker may use up before it is recycled, and how much at a time."""

from __future__ import annotations

from sockmgr.config import shape, values
from sockmgr.config.document import Value
from sockmgr.config.resources import Resources
from sockmgr.config.shape import TIMEOUT, Key, Shape, integer

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


RESOURCES = {
    "memory_high": Key(
        values.MEMORY, "Above this the kernel slows a worker down and takes memory back from it."
    ),
    "memory_max": Key(
        values.MEMORY, "A worker that needs more is killed, all its processes at once."
    ),
    "cpu_weight": Key(
        integer(1, 10000),
        "Its share of the processors when they are all busy, in proportion to 100 of the others.",
    ),
    "pids_max": Key(integer(1, 4194304), "So many processes and threads a worker may have."),
}


def _resources(value: Value) -> Resources:
    found = Resources(**shape.fields(RESOURCES, value))
    high, most = found.memory_high, found.memory_max
    if high is not None and most is not None and high > most:
        raise value.entries()["memory_high"].refused(
            "is above memory_max, so it would never be reached", do="make it less, or remove one"
        )
    return found


RESOURCES_KEY = Key(
    Shape(_resources, shape.table(RESOURCES)),
    "What each worker may use at a time, in a cgroup of its own: needs Delegate=yes.",
)
