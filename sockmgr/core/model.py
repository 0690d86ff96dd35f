"""The words of sockmgr as frozen values: addresses, specs, states, facts, commands, outcomes.

Durations are seconds, instants are seconds of one monotonic clock, sizes are bytes.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec
from msgspec.structs import replace

# --- Listeners ---------------------------------------------------------------------------------


class Scheme(StrEnum):
    """The kinds of address a listener can have; the value is the scheme of its URL."""

    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"
    ABSTRACT = "unix-abstract"
    FD = "fd"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One address: host and port (tcp, udp), a path or abstract name (unix), or a number (fd)."""

    scheme: Scheme
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        match self.scheme:
            case Scheme.TCP | Scheme.UDP:
                host = f"[{self.host}]" if ":" in self.host else self.host
                return f"{self.scheme}://{host}:{self.port}"
            case Scheme.UNIX:
                return f"unix://{self.path}"
            case Scheme.ABSTRACT:
                return f"unix-abstract:{self.path}"
            case Scheme.FD:
                return f"fd://{self.fd}"


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """What the config says of one listener. `mode`, `user` and `group` are for unix paths only."""

    name: str
    address: Address
    backlog: int = 4096
    mode: int | None = None
    user: str = ""
    group: str = ""


# --- What to run -------------------------------------------------------------------------------


class Surge(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers more than wanted a rollout may run: a number, or a share of the wanted."""

    amount: int
    percent: bool = False

    def above(self, wanted: int) -> int:
        """Return the number of additional workers for `wanted` ones, at least 1."""
        return max(1, math.ceil(wanted * self.amount / 100) if self.percent else self.amount)

    def __str__(self) -> str:
        if self == SURGE_ALL:
            return "all"
        return f"{self.amount}%" if self.percent else str(self.amount)


SURGE_ALL = Surge(amount=100, percent=True)


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """How one generation replaces another."""

    surge: Surge = SURGE_ALL
    probation: float = 0.25
    max_failed_starts: int = 3
    start_concurrency: int = 2
    max_draining: int = 4
    exclusive: bool = False


class Accepting(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ready when the kernel shows the worker waiting on each of its listeners."""

    def __str__(self) -> str:
        return "accepting"


class Notify(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ready when the worker itself says READY=1 (sd_notify(3))."""

    def __str__(self) -> str:
        return "notify"


class Delay(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Said to be ready `seconds` after its start: a guess, for programs that show nothing."""

    seconds: float

    def __str__(self) -> str:
        return f"delay of {self.seconds:g} s"


class Exec(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ready when this command, given the worker's pid and listeners, exits with 0."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"command {self.argv[0]}"


Ready = Accepting | Notify | Delay | Exec


class Accept(StrEnum):
    """Who takes a new connection: any worker of the generation, or the one that it is given to."""

    SHARED = "shared"
    PER_WORKER = "per-worker"
    DISPATCH = "dispatch"


class Policy(StrEnum):
    """To which worker a connection is passed, among those that have room (dispatch)."""

    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one generation runs: resolved, so that nothing can change under it.

    `argv` still holds its `{name}` placeholders. `executable` is the file to run and `cwd` the
    real path of the working directory. `env` is the whole environment but for what differs from
    worker to worker (LISTEN_PID and the like). With `preload` workers are copies of one process
    that has loaded everything, their template. `limits` are resource names without RLIMIT_, with
    soft and hard limit (-1: unlimited). Exit statuses are as Popen.returncode: -15 is signal 15.
    """

    service: str
    argv: tuple[str, ...]
    executable: str
    cwd: str
    env: tuple[tuple[str, str], ...] = ()
    listen: tuple[Listen, ...] = ()
    workers: int = 1
    umask: int | None = None
    user: str = ""
    group: str = ""
    limits: tuple[tuple[str, int, int], ...] = ()
    set_listen_pid: bool = True
    preload: bool = False
    ready: Ready = msgspec.field(default_factory=Accepting)
    ready_timeout: float = 60.0
    stop_signal: int = 15
    drain_timeout: float = 30.0
    max_age: float | None = None
    hang_timeout: float | None = None
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    accept: Accept = Accept.SHARED
    policy: Policy = Policy.ROUND_ROBIN
    max_connections: int | None = None

    def removed(self, newer: Spec) -> frozenset[Address]:
        """Return the addresses that `newer`, which replaces this, does not listen on."""
        kept = {listen.address for listen in newer.listen}
        return frozenset(listen.address for listen in self.listen) - kept

    def within(self, free: int, each: int) -> Spec:
        """Return this spec with a surge for which `free` bytes suffice, at `each` a worker.

        A tenth is left alone, and one more worker is always tried: a rollout must be possible.
        """
        fitting = max(1, int(free * 0.9) // max(1, each))
        if fitting >= self.rollout.surge.above(self.workers):
            return self
        return replace(self, rollout=replace(self.rollout, surge=Surge(amount=fitting)))


# --- Workers -----------------------------------------------------------------------------------


class State(StrEnum):
    """Where a worker is in its life. The legal steps are fleet.WORKER_STEPS."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    KILLED = "killed"
    GONE = "gone"


class Phase(StrEnum):
    """Where a generation is in its life. The legal steps are fleet.GENERATION_STEPS."""

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
    """This worker's process is gone and reaped; `status` is as Popen.returncode."""

    worker: WorkerId
    status: int


class WorkerStopping(msgspec.Struct, frozen=True, kw_only=True):
    """This worker says that it stops, and we have not told it to: it takes nothing any more."""

    worker: WorkerId


class SpawnFailed(msgspec.Struct, frozen=True, kw_only=True):
    """This worker could not be started at all."""

    worker: WorkerId
    error: str


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """Lease `lease`, not fed, holds no connection any more and will get none."""

    lease: int


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
    Start | Reload | WorkerReady | WorkerExited | WorkerStopping | SpawnFailed | Quiet | Scale
    | Recycle | Hung | Stop | StopNow | Tick
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


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Send this worker its stop signal."""

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
    """The rollout that these requests asked for failed; `kept` (0: none) goes on serving.

    `worker` is the one whose last output tells most, if there is one.
    """

    requests: tuple[int, ...]
    generation: int
    kept: int
    reason: str
    worker: WorkerId | None = None


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """No worker is left, and none will be started."""


Command = Spawn | Feed | Drain | Kill
Outcome = Serving | CutOver | Committed | Aborted | Stopped
Action = Command | Outcome


SIGNAL_NAMES = {
    1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1",
    11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 24: "XCPU", 25: "XFSZ", 31: "SYS",
}  # fmt: skip


def describe_exit(status: int) -> str:
    """Say what an exit status (as Popen.returncode) means."""
    if status >= 0:
        return f"exited with status {status}"
    name = SIGNAL_NAMES.get(-status)
    return f"was killed by signal {-status}" + (f" ({name})" if name else "")
