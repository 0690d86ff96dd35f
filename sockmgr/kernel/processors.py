"""How many processors we may use, which may be fewer than the machine has."""

from __future__ import annotations

import math
import os

from sockmgr.kernel import own_cgroups


def available() -> int:
    """Return the number of processors whose time is ours, at least 1.

    It is the least of those that we may run on (sched_setaffinity(2)) and of the quota of each
    cgroup v2 above us (cpu.max), of which a part of a processor counts as one.
    """
    found = [len(os.sched_getaffinity(0))]
    for directory in own_cgroups.directories():
        quota, _, period = own_cgroups.read(directory / "cpu.max").strip().partition(" ")
        if quota.isdecimal() and period.isdecimal():
            found.append(math.ceil(int(quota) / max(1, int(period))))
    return max(1, min(found))
