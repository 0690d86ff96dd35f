"""How many more workers there is memory for, so that a rollout is not killed half-way."""

from __future__ import annotations

from collections.abc import Iterable

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Spec
from sockmgr.kernel import memory
from sockmgr.kernel.procfs import descendants
from sockmgr.log import Log

log = Log("sockmgr")


def fitting(spec: Spec, pids: Iterable[int]) -> Spec:
    """Return `spec` with a surge that fits into memory, if each worker needs as much as `pids`."""
    each = max((memory.used({pid, *descendants(pid)}) for pid in pids), default=0)
    free = memory.available()
    if not each or free is None:
        return spec
    smaller = spec.within(free, each)
    if smaller is not spec:
        surge = str(smaller.rollout.surge)
        log.warning(EventKind.SURGE_REDUCED, service=spec.service, to=surge, free=free, each=each)
    return smaller
