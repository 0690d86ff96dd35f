"""What is wanted, as frozen values: listeners, and the spec of a generation with all its parts.

Durations are seconds, sizes are bytes.
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
    """Ready when this command, given the worker's pid and listeners, exits with 0.

    `executable` is its file as it was found when the spec was resolved; older specs have none.
    """

    argv: tuple[str, ...]
    executable: str = ""

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


def report_pace(policy: Policy, max_connections: int | None) -> int:
    """Return how many milliseconds a busy worker may take to tell what it has closed.

    Each report wakes the manager: be told soon only where it decides who gets the next connection.
    """
    return 1 if policy is Policy.LEAST_CONNECTIONS or max_connections is not None else 100
