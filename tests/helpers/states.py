"""States as a manager writes them down, of workers that a test has started itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sockmgr.config.config import parse
from sockmgr.config.spec import Spec
from sockmgr.fleet.fleet import Fleet
from sockmgr.fleet.messages import Phase, State, WorkerId
from sockmgr.fleet.snapshot import (
    GenerationSnapshot,
    ProcessSnapshot,
    ServiceSnapshot,
    Snapshot,
    WorkerSnapshot,
    as_json,
    generation_record,
    sealed,
    service_record,
    worker_record,
)
from sockmgr.kernel.procfs import member

_CONFIG = parse(b'[listen]\n[service.web]\ncommand = ["x"]\nlisten = []\n', file="sockmgr.toml")


def worker(
    pid: int, *, started: int | None = None, told: bool = False, state: State = State.READY,
    ready: bool = False, deadline: float = 0.0,
) -> WorkerSnapshot:  # fmt: skip
    """Return the record of a process that runs, or is said to have started at another time."""
    if started is None:
        found = member(pid)
        assert found is not None
        started = found.started
    process = ProcessSnapshot(pid=pid, started=started, told=told, ready=ready)
    return WorkerSnapshot(
        slot=pid, lease=0, since=0.0, deadline=deadline, state=state, ready_at=0.0, process=process
    )


def state(
    workers: Sequence[WorkerSnapshot], *, stop_signal: int = 15, drain_timeout: float = 30.0
) -> Snapshot:
    """Return a state with one service of these workers."""
    spec = Spec(
        service="web", argv=("x",), executable="/x", cwd="/", stop_signal=stop_signal,
        drain_timeout=drain_timeout,
    )  # fmt: skip
    generation = GenerationSnapshot(
        number=1, spec=spec, lease=0, wanted=len(workers), since=0.0, deadline=0.0,
        phase=Phase.CURRENT, workers=tuple(workers),
    )  # fmt: skip
    service = ServiceSnapshot(
        name="web", last=1, current=1, trial=0, served=True, generations=(generation,), fed=(),
        unquiet=(),
    )  # fmt: skip
    return Snapshot(boot_id="", config=_CONFIG, listeners=(), services=(service,))


def encode(snapshot: Snapshot, *, serial: int = 0) -> bytes:
    """Return a state as a manager writes it down."""
    return sealed(as_json(snapshot), serial=serial)


def record(
    name: str,
    fleet: Fleet,
    processes: Mapping[WorkerId, ProcessSnapshot],
    hook: ProcessSnapshot | None = None,
) -> ServiceSnapshot:
    """Return what a fleet has to be restored from; `hook` is the process of its hook."""
    generations = (
        generation_record(
            each,
            each.spec,
            tuple(worker_record(w, processes.get(w.id)) for w in each.workers.values()),
        )
        for each in fleet.generations.values()
    )
    return service_record(name, fleet, tuple(generations), hook=hook)


def memfd(data: Snapshot | bytes) -> int:
    """Return a new memfd that holds a state; the caller closes it."""
    fd = os.memfd_create("state")
    os.pwrite(fd, data if isinstance(data, bytes) else encode(data, serial=1), 0)
    return fd
