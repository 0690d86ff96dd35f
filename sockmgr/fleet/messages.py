"""The words between a fleet and its shell, as frozen values: states, facts, commands, outcomes.

Instants are seconds of one monotonic clock. What a fleet is to run is spec.py's.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sockmgr.config.hooks import Moment
from sockmgr.config.spec import Spec
from sockmgr.fleet.group import Together
from sockmgr.fleet.limits import Limit

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
    CANARY = "canary"
    PROBATION = "probation"
    CURRENT = "current"
    RETIRING = "retiring"
    GONE = "gone"


# Ordered, so that whoever lists workers lists the oldest generation first.
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
    sockets that were open before us. The shell owes a Quiet for each but the first. Until Released,
    or for `patience` seconds, no worker is started.
    """

    spec: Spec
    left: tuple[int, ...] = ()  # the first generation gets the fullest one as its own
    patience: float = 0.0


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody, known by the number `request`, wants `spec` to replace what runs.

    With `together` it goes only as far as it is Let. `patience` is as in Start.
    """

    spec: Spec
    request: int
    together: Together | None = None
    patience: float = 0.0


class Let(msgspec.Struct, frozen=True, kw_only=True):
    """All services of this group have come so far that each may pass the next gate."""

    together: Together


class GoBack(msgspec.Struct, frozen=True, kw_only=True):
    """The service `failed` of this group was taken back, so the others must be, too."""

    group: int
    failed: str


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """All services that this one is after serve, so it need not wait any more."""


class WorkerReady(msgspec.Struct, frozen=True, kw_only=True):
    """There is evidence that this worker serves; `draw`, in [0, 1), is another for each."""

    worker: WorkerId
    draw: float = 0.0


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


class HookDone(msgspec.Struct, frozen=True, kw_only=True):
    """The hook that RunHook ordered is dead; `fault` says what went wrong, "" if nothing did."""

    generation: int
    moment: Moment
    fault: str = ""


class ClientsWait(msgspec.Struct, frozen=True, kw_only=True):
    """Connections wait at our listeners; told when the fleet says that it starves."""


class FeedFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The last Feed could not be performed, or not at every listener; `error` says why."""

    error: str


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """`workers` are wanted from now on, in this generation and in one on trial."""

    workers: int


class Recycle(msgspec.Struct, frozen=True, kw_only=True):
    """This worker is to be replaced by one of the same spec, successor first.

    With a `limit`, which it has reached, it waits for its turn: recycling.py.
    """

    worker: WorkerId
    why: str
    limit: Limit | None = None


class Promote(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody trusts the canary `generation`: it need prove nothing more."""

    generation: int


class TakeBack(msgspec.Struct, frozen=True, kw_only=True):
    """Generation `generation` is to be taken back, if it is on trial still; `why` says all."""

    generation: int
    why: str


class CheckPassed(msgspec.Struct, frozen=True, kw_only=True):
    """The check of this step of the canary `generation` has exited with 0."""

    generation: int
    step: int


class Hung(msgspec.Struct, frozen=True, kw_only=True):
    """This worker was ready and gives no sign of life any more; `why` says for how long."""

    worker: WorkerId
    why: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """This worker serves, and has failed as many probes in a row as it may; `why` tells the last.

    With "" it has passed one: the first since it was ready, or since it had failed these.
    """

    worker: WorkerId
    why: str


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Drain everything and end."""


class StopNow(msgspec.Struct, frozen=True, kw_only=True):
    """Kill everything and end."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing happened but time."""


# What somebody wants of the whole service.
Wish = Start | Reload | Scale | Promote | TakeBack | Stop | StopNow
Fact = (
    Wish | WorkerReady | WorkerExited | WorkerStopping | SpawnFailed | Quiet | ClientsWait
    | FeedFailed | Recycle | Hung | CheckPassed | Health | HookDone | Tick | Let | GoBack
    | Released
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

    # All leases are named, not just changes, so that the next Feed makes up for a failed one.
    leases: tuple[tuple[int, int], ...]


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Let no new connection begin: everything stops when those that wait are served.

    For each lease that is fed, the shell owes one Quiet.
    """


class RunHook(msgspec.Struct, frozen=True, kw_only=True):
    """Run this hook of a generation; the shell owes one HookDone, however it ends."""

    generation: int
    moment: Moment
    spec: Spec


class EndHook(msgspec.Struct, frozen=True, kw_only=True):
    """Kill this hook, which runs."""

    generation: int
    moment: Moment
    why: str


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


class CanaryStep(msgspec.Struct, frozen=True, kw_only=True):
    """From this Feed on, `share` percent of new connections are to go to `generation`.

    This is the step with the number `step`, from 0, of `steps`.
    """

    generation: int
    step: int
    steps: int
    share: int


class CanaryPassed(msgspec.Struct, frozen=True, kw_only=True):
    """`generation` has proven itself as a canary, or was promoted; its rollout goes on."""

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
    last output tells most, if there is one. `failed` is the service with which this one had to go
    back, "" if it failed by itself.
    """

    requests: tuple[int, ...]
    generation: int
    kept: int
    ready: int
    reason: str
    worker: WorkerId | None = None
    failed: str = ""


class WaitedInVain(msgspec.Struct, frozen=True, kw_only=True):
    """`generation` starts now, though services that it is after do not serve yet."""

    generation: int


class Recycled(msgspec.Struct, frozen=True, kw_only=True):
    """This worker is being replaced since it has reached `limit`; the next one not for `pause` s.

    With a pause, `early` of them in a row have reached theirs as soon as they were ready.
    """

    worker: WorkerId
    limit: Limit
    why: str
    early: int
    pause: float


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """No worker is left, and none will be started."""


Command = Spawn | Feed | Refuse | RunHook | EndHook | Drain | Finish | Kill
Outcome = (
    Serving | CanaryStep | CanaryPassed | CutOver | Committed | Aborted | WaitedInVain | Recycled
    | Stopped
)  # fmt: skip
Action = Command | Outcome
