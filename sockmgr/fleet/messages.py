"""The words between a fleet and its shell, as frozen values: states, facts, commands, outcomes.

Instants are seconds of one monotonic clock. What a fleet is to run is spec.py's.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sockmgr.config.spec import Spec

# --- Workers -----------------------------------------------------------------------------------


class State(StrEnum):
    """Where a worker is in its life. The legal steps are generation.WORKER_STEPS."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    KILLED = "killed"
    GONE = "gone"


class Phase(StrEnum):
    """Where a generation is in its life. The legal steps are generation.GENERATION_STEPS."""

    BOOTING = "booting"
    PROBATION = "probation"
    CURRENT = "current"
    RETIRING = "retiring"
    GONE = "gone"


class WorkerId(msgspec.Struct, frozen=True, order=True):
    """`7.2`: the worker in slot 2 of generation 7. Unique among the living of one service."""

    generation: int
    slot: int

    def __str__(self) -> str:
        return f"{self.generation}.{self.slot}"


# --- Facts: what happened ----------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The service is to run `spec` as its first generation.

    `left` are the leases on which others may have left connections, the fullest first: those of
    sockets that were open before us. The shell owes a Quiet for each but the first.
    """

    spec: Spec
    left: tuple[int, ...] = ()


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody, known by the number `request`, wants `spec` to replace what runs."""

    spec: Spec
    request: int


class WorkerReady(msgspec.Struct, frozen=True, kw_only=True):
    """There is evidence that this worker serves."""

    worker: WorkerId


class WorkerExited(msgspec.Struct, frozen=True, kw_only=True):
    """This worker's process is gone and reaped; `status` is as Popen.returncode.

    `took`: while it lived, somebody took connections that waited in its queue.
    """

    worker: WorkerId
    status: int
    took: bool = False


class WorkerStopping(msgspec.Struct, frozen=True, kw_only=True):
    """This worker says that it stops, and we have not told it to: it takes nothing any more.

    `took` is as in WorkerExited.
    """

    worker: WorkerId
    took: bool = False


class SpawnFailed(msgspec.Struct, frozen=True, kw_only=True):
    """This worker could not be started at all."""

    worker: WorkerId
    error: str


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """Lease `lease`, not fed, holds no connection any more and will get none."""

    lease: int


class ClientsWait(msgspec.Struct, frozen=True, kw_only=True):
    """Connections wait at our listeners; told when the fleet says that it starves."""


class FeedFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The last Feed could not be performed, or not at every listener; `error` says why."""

    error: str


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """`workers` are wanted from now on, in this generation and in one on trial."""

    workers: int


class Recycle(msgspec.Struct, frozen=True, kw_only=True):
    """This worker is to be replaced by one of the same spec, successor first."""

    worker: WorkerId
    why: str


class Hung(msgspec.Struct, frozen=True, kw_only=True):
    """This worker was ready and gives no sign of life any more; `why` says for how long."""

    worker: WorkerId
    why: str


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Drain everything and end."""


class StopNow(msgspec.Struct, frozen=True, kw_only=True):
    """Kill everything and end."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing happened but time."""


Fact = (
    Start | Reload | WorkerReady | WorkerExited | WorkerStopping | SpawnFailed | Quiet | ClientsWait
    | FeedFailed | Scale | Recycle | Hung | Stop | StopNow | Tick
)  # fmt: skip


# --- Commands: what the shell must do now -------------------------------------------------------


class Spawn(msgspec.Struct, frozen=True, kw_only=True):
    """Start this worker on queue `lease` of each of its listeners.

    `background`: others are serving, so it should boot at a lower CPU priority until it is ready.
    """

    worker: WorkerId
    spec: Spec
    lease: int
    background: bool


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """Give new connections to these leases only: (lease, weight), the first the fallback.

    For each lease that was fed before and is not now, the shell owes one Quiet.
    """

    leases: tuple[tuple[int, int], ...]


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Let no new connection begin: everything stops when those that wait are served.

    For each lease that is fed, the shell owes one Quiet.
    """


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Send this worker its stop signal."""

    worker: WorkerId
    why: str


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """Tell this worker, which drains, to end now: it is killed soon."""

    worker: WorkerId
    why: str


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """Kill this worker's process group."""

    worker: WorkerId
    why: str


# --- Outcomes: what the shell must tell ---------------------------------------------------------


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """All wanted workers of the first generation are ready for the first time."""

    generation: int


class CutOver(msgspec.Struct, frozen=True, kw_only=True):
    """From this Feed on, new connections go to `generation`, which is on probation."""

    generation: int


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout that these requests asked for is done: `generation` is the current one.

    If it replaces one that had more listeners, each lease of that is unquiet again: the shell owes
    a Quiet, when nobody can come to these listeners any more, and nobody waits there.
    """

    requests: tuple[int, ...]
    generation: int


class Aborted(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout that these requests asked for failed, and generation `kept` (0: none) stays.

    `ready` of its workers can take connections: with 0, nobody serves. `worker` is the one whose
    last output tells most, if there is one.
    """

    requests: tuple[int, ...]
    generation: int
    kept: int
    ready: int
    reason: str
    worker: WorkerId | None = None


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """No worker is left, and none will be started."""


Command = Spawn | Feed | Refuse | Drain | Finish | Kill
Outcome = Serving | CutOver | Committed | Aborted | Stopped
Action = Command | Outcome


SIGNAL_NAMES = {
    1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1",
    11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 24: "XCPU", 25: "XFSZ", 31: "SYS",
}  # fmt: skip


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ended, whose exit `status` is that of Popen.returncode.

    `recycled`: it left by itself, and is replaced. `clean`: it drained as it should.
    """

    status: int
    recycled: bool = False
    clean: bool = False

    def __str__(self) -> str:
        """Return a word or two for a log line."""
        if self.recycled:
            return "recycled"
        return "clean" if self.clean else describe_exit(self.status)


def describe_exit(status: int) -> str:
    """Say what an exit status (as Popen.returncode) means."""
    if status >= 0:
        return f"exited with status {status}"
    name = SIGNAL_NAMES.get(-status)
    return f"was killed by signal {-status}" + (f" ({name})" if name else "")
