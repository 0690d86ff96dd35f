"""Listeners, and the spec of a generation with all its parts, as frozen values.

Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from sockmgr.config.hooks import Hooks
from sockmgr.config.probe import Healthy, HttpProbe, Probe, TcpProbe, warm_up_like
from sockmgr.config.resources import Resources

# --- Listeners ---------------------------------------------------------------------------------


class Scheme(StrEnum):
    """The kinds of address a listener can have; the value is the scheme of its URL."""

    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"
    ABSTRACT = "unix-abstract"
    FD = "fd"


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What all listeners of one scheme have in common.

    `form` is the text of an address, of its fields. `is_internet`: it has a host and a port, and
    the kernel steers among its queues. `has_path`: the socket is a node in the file system.
    `is_inherited`: the manager does not open the socket, and only the socket itself shows whether
    it is one for streams or for datagrams. `seen_by` is the ss(8) command that lists such sockets.
    """

    form: str
    is_internet: bool = False
    is_stream: bool = False
    is_datagram: bool = False
    has_path: bool = False
    is_inherited: bool = False
    seen_by: str = ""


_INTERNET = "{scheme}://{host}:{port}"
TRAITS = {
    Scheme.TCP: Traits(form=_INTERNET, is_internet=True, is_stream=True, seen_by="ss -ltnp"),
    Scheme.UDP: Traits(form=_INTERNET, is_internet=True, is_datagram=True, seen_by="ss -lunp"),
    Scheme.UNIX: Traits(form="unix://{path}", is_stream=True, has_path=True, seen_by="ss -xlp"),
    Scheme.ABSTRACT: Traits(form="unix-abstract:{path}", is_stream=True, seen_by="ss -xlp"),
    Scheme.FD: Traits(form="fd://{fd}", is_inherited=True),
}


def traits_of(address: str) -> Traits:
    """Return the traits of an address in a status; those of FD if its scheme is not known."""
    name = address.partition(":")[0]
    return TRAITS[Scheme(name) if name in list(Scheme) else Scheme.FD]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One address: host and port (tcp, udp), a path or abstract name (unix), or a number (fd)."""

    scheme: Scheme
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    @property
    def traits(self) -> Traits:
        """What it has in common with all addresses of its scheme."""
        return TRAITS[self.scheme]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.traits.form.format(
            scheme=self.scheme, host=host, port=self.port, path=self.path, fd=self.fd
        )


class OnStop(StrEnum):
    """What a TCP client meets who comes when all is being stopped.

    REFUSE: it is told at once that nobody listens. DROP: it hears nothing, and tries again.
    """

    REFUSE = "refuse"
    DROP = "drop"


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """One listener of the config. `mode`, `user`, `group`: unix paths only; `on_stop`: TCP only."""

    name: str
    address: Address
    backlog: int = 4096
    mode: int | None = None
    user: str = ""
    group: str = ""
    on_stop: OnStop = OnStop.REFUSE


# --- What to run -------------------------------------------------------------------------------


class Surge(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers above the wanted number a rollout may run: a number, or a share of it."""

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


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """How a new generation proves itself: by shares of the new connections, step by step.

    `shares` are percents, and rise. Each step takes `seconds`, and `check`, which is run once in
    each, must exit with 0 by then. With `hold` the last step ends only when somebody decides.
    `executable` is the file of the check.
    """

    shares: tuple[int, ...]
    seconds: float = 30.0
    hold: bool = False
    check: tuple[str, ...] = ()
    executable: str = ""

    def __str__(self) -> str:
        steps = ", ".join(f"{share}%" for share in self.shares)
        held = ", the last one until somebody decides" if self.hold else ""
        return f"{steps} for {self.seconds:g} s{' each' if self.shares[1:] else ''}{held}"


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """How one generation replaces another.

    Each new worker is asked for each of the paths `warmup`, `warmup_requests` times, before it gets
    its first connection.
    """

    surge: Surge = SURGE_ALL
    probation: float = 0.25
    max_failed_starts: int = 3
    start_concurrency: int = 2
    max_draining: int = 4
    exclusive: bool = False
    canary: Canary | None = None
    warmup: tuple[str, ...] = ()
    warmup_requests: int = 3


class Accepting(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ready when the kernel shows the worker waiting on each of its listeners."""

    def __str__(self) -> str:
        return "accepting"


class Notify(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ready when the worker itself says READY=1 (sd_notify(3))."""

    def __str__(self) -> str:
        return "notify"


class Delay(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Taken for ready `seconds` after its start: a guess, for programs that show nothing."""

    seconds: float

    def __str__(self) -> str:
        return f"delay of {self.seconds:g} s"


class Exec(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ready when this command, which gets the worker's pid and listeners, exits with 0.

    It is run once the worker is seen to accept, or at once if that is not `accepting`, since it
    cannot be seen. `executable` is the file of the command; specs of older versions have none.
    """

    argv: tuple[str, ...]
    executable: str = ""
    accepting: bool = True

    def __str__(self) -> str:
        return f"command {self.argv[0]}"


Ready = Accepting | Notify | Delay | Exec | HttpProbe | TcpProbe


class Accept(StrEnum):
    """Which worker of a generation takes a new connection.

    SHARED: the first that accepts from their one queue. PER_WORKER: the one whose queue the kernel
    chose. DISPATCH: the one to which the dispatcher passes the connection.
    """

    SHARED = "shared"
    PER_WORKER = "per-worker"
    DISPATCH = "dispatch"


class Policy(StrEnum):
    """Which worker is passed a connection, of those that may get more (DISPATCH)."""

    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"


class ReleaseName(msgspec.Struct, frozen=True, kw_only=True):
    """Where the name of a release is found: what `argv` prints, or the first line of `file`.

    Both are looked for in the directory of the generation.
    """

    argv: tuple[str, ...] = ()
    file: str = ""


class TakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """What a service says of its workers that each of its generations takes over as it is.

    `after` are the services that are to serve before this one, and to end after it. With `preload`
    workers are copies of their template, one process that has loaded the application.
    `prometheus_multiproc`: they keep metrics of their own in a directory that they are told. `max_`
    is how much a worker may use up before it is recycled: seconds, bytes, requests, seconds.
    """

    max_age: float | None = None
    max_rss: int | None = None
    max_requests: int | None = None
    max_cpu_time: float | None = None
    after: tuple[str, ...] = ()
    umask: int | None = None
    user: str = ""
    group: str = ""
    preload: bool = False
    ready_timeout: float = 60.0
    drain_timeout: float = 30.0
    when_down: float | None = None
    accept: Accept = Accept.SHARED
    policy: Policy = Policy.ROUND_ROBIN
    max_connections: int | None = None
    release: ReleaseName | None = None
    healthy: Healthy | None = None
    prometheus_multiproc: bool = False
    resources: Resources = Resources()


class Spec(TakenOver, frozen=True, kw_only=True):
    """Everything that one generation runs, resolved, so that later changes do not affect it.

    `argv` and `slot_env` still have their placeholders. `executable` is the file to run, `cwd` the
    real path of the working directory. `env` is the whole environment except for variables that
    differ from worker to worker: those of the protocol, such as LISTEN_PID, and `slot_env`.
    `limits` are resource names without RLIMIT_, with soft and hard limit (-1: unlimited). Exit
    statuses are those of Popen.returncode: -15 is signal 15. Workers that end give their
    connections to those that have the same `moves`; "" gives none.
    `foreign` are leases that other services have on its listeners, which it gets from them.
    `has_figures`: its workers count requests, failures and times, where the manager can read them.
    `tls`: what they answer to is TLS, as far as we know.
    `takes_private`: they take one more listener, to be probed by where all share one socket.
    """

    service: str
    argv: tuple[str, ...]
    executable: str
    cwd: str
    env: tuple[tuple[str, str], ...] = ()
    slot_env: tuple[tuple[str, str], ...] = ()
    listen: tuple[Listen, ...] = ()
    workers: int = 1
    limits: tuple[tuple[str, int, int], ...] = ()
    set_listen_pid: bool = True
    ready: Ready = msgspec.field(default_factory=Accepting)
    stop_signal: int = 15
    hang_timeout: float | None = None
    clean_exits: frozenset[int] = frozenset({0})
    broken_exits: frozenset[int] = frozenset()
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    hooks: Hooks = msgspec.field(default_factory=Hooks)
    moves: str = ""
    has_figures: bool = False
    tls: bool = False
    takes_private: bool = False
    foreign: frozenset[int] = frozenset()

    @property
    def probes(self) -> dict[str, Probe]:
        """What its workers are asked, by the key of the service that says so."""
        found: dict[str, Probe] = {}
        if isinstance(self.ready, HttpProbe | TcpProbe):
            found["ready"] = self.ready
        if self.rollout.warmup:
            found["rollout.warmup"] = warm_up_like(self.ready)
        if self.healthy:
            found["healthy"] = self.healthy.probe
        return found

    def asked(self, probe: Probe) -> Listen:
        """Return the listener by which a worker is asked; there is one, as the config says."""
        streams = (each for each in self.listen if not each.address.traits.is_datagram)
        return next(each for each in streams if probe.listener in ("", each.name))

    @property
    def addresses(self) -> frozenset[Address]:
        """The addresses of its listeners."""
        return frozenset([listen.address for listen in self.listen])

    def removed(self, newer: Spec) -> frozenset[Address]:
        """Return the addresses of this spec that its successor `newer` does not have."""
        return self.addresses - newer.addresses

    def trusted(self) -> Spec:
        """Return this spec without a canary: what it runs has proven itself before."""
        return replace(self, rollout=replace(self.rollout, canary=None))

    def within(self, free: int, each: int) -> Spec:
        """Return this spec with a surge that fits into `free` bytes of memory, at `each` a worker.

        A tenth of the memory stays free. The surge is at least one worker, since without one there
        is no rollout.
        """
        fitting = max(1, int(free * 0.9) // max(1, each))
        if fitting >= self.rollout.surge.above(self.workers):
            return self
        return replace(self, rollout=replace(self.rollout, surge=Surge(amount=fitting)))


def report_pace(policy: Policy, max_connections: int | None) -> int:
    """Return for how many milliseconds a busy worker may delay its report of closed connections.

    Each report wakes the manager, so reports come soon only if the manager needs them to choose the
    worker of the next connection.
    """
    return 1 if policy is Policy.LEAST_CONNECTIONS or max_connections is not None else 100
