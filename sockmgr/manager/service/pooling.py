"""Whether each worker of a service can have a queue of its own; opens the queues they will need."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Accept, Spec
from sockmgr.errors import ListenError
from sockmgr.log import Log
from sockmgr.manager.listeners.listener import Listener

log = Log("sockmgr")


def pooled(spec: Spec, listeners: Sequence[Listener]) -> Spec:
    """Return `spec`, with one queue for all workers if these listeners allow no other way."""
    if spec.accept is not Accept.PER_WORKER:
        return spec
    if obstacle := _obstacle(spec, listeners):
        log.warning(EventKind.WORKERS_SHARE_A_QUEUE, service=spec.service, because=obstacle)
        return replace(spec, accept=Accept.SHARED)
    return spec


def _obstacle(spec: Spec, listeners: Sequence[Listener]) -> str:
    beside = 0 if spec.rollout.exclusive else spec.rollout.surge.above(spec.workers)
    for listener in listeners:
        if not listener.is_steered:
            return f"{listener.listen.name}: {listener.why_overlap}"
        try:
            listener.lease(spec.workers + beside - 1)
        except ListenError as error:
            return f"{error.what}: {error.do}"
    return ""
