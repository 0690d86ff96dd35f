"""How many workers more there is memory for, so that the kernel kills none in a rollout."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Spec
from sockmgr.kernel import memory
from sockmgr.kernel.procfs import descendants
from sockmgr.log import Log

log = Log("sockmgr")

MEASURED = 4  # workers of a service, the newest ones


async def fitting(specs: Sequence[Spec], workers: Mapping[str, Sequence[int]]) -> list[Spec]:
    """Return `specs` with a surge that fits into memory, where `workers` are pids by service.

    Each new worker is taken to need as much as the largest of these, which are a few of each
    service, measured once a reload.
    """
    # In a thread: smaps_rollup in proc(5) walks all pages of a process, which takes milliseconds.
    sizes = await asyncio.to_thread(_measure, workers)
    return [_fit(spec, sizes.get(spec.service, 0)) for spec in specs]


def _measure(workers: Mapping[str, Sequence[int]]) -> dict[str, int]:
    # With all that a worker has started: too small a surge is slow, too large a one has the kernel
    # kill workers that serve.
    return {
        service: max((memory.footprint({pid, *descendants(pid)}, 0) for pid in pids), default=0)
        for service, pids in workers.items()
    }


def _fit(spec: Spec, each: int) -> Spec:
    if not each or (free := memory.available()) is None:
        return spec
    smaller = spec.within(free, each)
    if smaller is not spec:
        surge = str(smaller.rollout.surge)
        log.warning(EventKind.SURGE_REDUCED, service=spec.service, to=surge, free=free, each=each)
    return smaller
