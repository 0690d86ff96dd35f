"""Whether each worker of a service can have its own queue; opens the queues that will be needed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Accept, Spec
from sockmgr.errors import ControlError, ListenError
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


def check_shares(spec: Spec, listeners: Sequence[Listener]) -> None:
    """Raise ControlError if a canary of this spec could have no share on one of its listeners."""
    if spec.rollout.canary is None or spec.accept is Accept.DISPATCH:
        return
    for listener in listeners:
        if not listener.is_steered:
            raise ControlError(
                f"a canary of service {spec.service} cannot have a share on the listener "
                f"{listener.listen.name}: {listener.why_overlap}",
                means="nothing was changed",
                do='reload without a canary, or use accept = "dispatch" with a server that can',
            )


def _obstacle(spec: Spec, listeners: Sequence[Listener]) -> str:
    # As many as there can ever be: it is now that a fallback costs nothing, not half-way through a
    # rollout.
    beside = 0 if spec.rollout.exclusive else spec.rollout.surge.above(spec.workers)
    for listener in listeners:
        if not listener.is_steered:
            return f"{listener.listen.name}: {listener.why_overlap}"
        try:
            listener.lease(spec.workers + beside - 1)
        except ListenError as error:
            return f"{error.what}: {error.do}"
    return ""
