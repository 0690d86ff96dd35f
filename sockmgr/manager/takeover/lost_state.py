"""Records for workers that outlived their manager while its state was lost, made of what is left.

The names of descriptors tell which worker is which, and the kernel which socket it has. That is
enough for a rollout to replace the workers while they serve. Owns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sockmgr.config.spec import Accept, Spec
from sockmgr.fleet.messages import Phase, State, WorkerId
from sockmgr.fleet.snapshot import GenerationSnapshot, ServiceSnapshot, WorkerSnapshot
from sockmgr.kernel.procfs import sockets_of
from sockmgr.kernel.queues import inode
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.workers.survivor import Survivor


def guessed(
    spec: Spec, workers: Mapping[WorkerId, Survivor], listeners: Sequence[Listener]
) -> ServiceSnapshot:
    """Return records of these workers as if they ran `spec`, so that a rollout can replace them."""
    if spec.accept is Accept.DISPATCH:  # they hold no listener: each has a lease
        leases = {id: n for n, id in enumerate(workers)}
    else:
        leases = {id: _lease(survivor, listeners) for id, survivor in workers.items()}
    numbers = sorted({id.generation for id in workers})
    # The newest generation was serving, or was about to: the older ones are on their way out.
    last = numbers[-1]
    serving = {lease for id, lease in leases.items() if id.generation == last}
    return ServiceSnapshot(
        name=spec.service,
        last=last,
        current=last,
        trial=0,
        served=True,
        generations=tuple(_guessed_generation(spec, n, leases, n == last) for n in numbers),
        fed=(),  # nobody knows, so it is fed anew
        unquiet=tuple((lease, 0.0) for lease in sorted({*leases.values()} - serving)),
    )


def _guessed_generation(
    spec: Spec, number: int, leases: Mapping[WorkerId, int], is_current: bool
) -> GenerationSnapshot:
    mine = {id: lease for id, lease in leases.items() if id.generation == number}
    held = set(mine.values())
    shared = len(held) == 1 and spec.accept is not Accept.DISPATCH
    return GenerationSnapshot(
        number=number,
        spec=spec,
        lease=held.pop() if shared else None,
        wanted=len(mine),
        since=0.0,
        deadline=0.0,
        phase=Phase.CURRENT if is_current else Phase.RETIRING,
        workers=tuple(
            # Ready since long ago, so that a worker which ends meanwhile counts as one that served.
            WorkerSnapshot(slot=id.slot, lease=lease, since=0.0, deadline=None,
                           state=State.READY, ready_at=0.0)
            for id, lease in mine.items()
        ),
    )  # fmt: skip


def _lease(worker: Survivor, listeners: Sequence[Listener]) -> int:
    # Nothing wrote down its lease, but the worker has the socket: that is how it is found.
    holds = sockets_of(worker.process.pid)
    for listener in listeners:
        for n, queue in enumerate(listener.queues):
            if inode(queue) in holds:
                return n
    return 0
