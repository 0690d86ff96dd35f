"""What a manager reports: its status, a plan, the log, events, and how a rollout goes and ends.

The names of the fields are public: `--json` and the Varlink interface show them. All times are in
seconds: `age` until now, `deadline` from now, `started` and `time` since 1970. `rss` is in bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from sockmgr.api.figures import Comparison, Requests


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How often things happened to a service; the next manager continues these counts.

    Rollouts: `committed` and `aborted`. Workers: `started`, `not_started` (could not be started)
    and `hung`. How workers ended: `drained`, cleanly after a stop signal; `unclean`, otherwise
    after a stop signal; `killed`, because they took too long; `recycled`, by themselves when their
    work was done; `exited`, by themselves with status 0, but as soon as they were ready; `crashed`,
    by themselves in any other way; `unready`, before they were ever ready. `connections_lost`
    counts the connections passed to workers which could open no more files, `max_rss` and so on the
    workers that were replaced for this limit.
    """

    committed: int = 0
    aborted: int = 0
    started: int = 0
    not_started: int = 0
    drained: int = 0
    unclean: int = 0
    killed: int = 0
    recycled: int = 0
    exited: int = 0
    crashed: int = 0
    unready: int = 0
    hung: int = 0
    connections_lost: int = 0
    max_rss: int = 0
    max_requests: int = 0
    max_age: int = 0
    max_cpu_time: int = 0


class ManagerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The manager's process. `refused` counts the reloads that could not even begin.

    `config` is the file that the manager reads, "" if it was started without one. `dispatcher` is
    the pid of the process that passes connections on, None if no service needs one, and 0 if it is
    missing: then new connections wait. `stopping`: it was told to stop, though it may serve on for
    a while.
    """

    pid: int
    version: str
    started: float = 0.0
    refused: int = 0
    config: str | None = None
    dispatcher: int | None = None
    stopping: bool = False


ONE_QUEUE = "one queue"


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One listener. `queue` is how many connections wait, `backlog` how many may wait.

    `cutover` is how new connections leave an old generation: "steered" or "overlap". `choice` is
    how the kernel now chooses among several queues: "round robin (eBPF)" or "random (classic BPF)",
    or "one queue". `unreachable` is why a probe cannot be led to one of them, "" if it can.
    """

    address: str
    queue: int
    backlog: int
    cutover: str
    choice: str = ONE_QUEUE
    unreachable: str = ""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process and its descendants; `lease` is the number of its queue.

    `connections` is how many the worker has open; None unless they are passed to it.
    `probe` is what its last probe found wrong, "" if nothing, or if it is not probed.
    `recycle` says why it is replaced, or will be in its turn; "" if it is not.
    """

    slot: int
    generation: int
    pid: int
    state: str
    rss: int
    age: float
    lease: int = 0
    connections: int | None = None
    probe: str = ""
    recycle: str = ""

    def name(self, service: str) -> str:
        """Return the name of this worker of `service`: `web@7.2`."""
        return f"{service}@{self.generation}.{self.slot}"


class CanaryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A canary: a generation that gets `share` percent of the new connections in this step.

    `step` counts from 1. `since` is for how long it takes already, `left` how long until its end;
    None if somebody has to decide. `passed`: it has only to wait for the rest of its workers.
    `compared` is how its requests were answered, None if its workers count none.
    """

    share: int
    step: int
    steps: int
    since: float
    left: float | None = None
    passed: bool = False
    compared: Comparison | None = None

    def __str__(self) -> str:
        which = f", step {self.step} of {self.steps}" if self.steps > 1 else ""
        held = self.left is None
        left = f"held for {self.since:.0f} s" if held else f"{self.left:.0f} s left"
        return f"canary {self.share} %{which}, {'passed' if self.passed else left}"

    @property
    def numbers(self) -> str:
        """How its requests were answered, as a person reads it, behind something else."""
        return f"; {self.compared}" if self.compared and self.compared.requests else ""


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout under way: how many of the `wanted` workers of `generation` are `ready`.

    `deadline` is None if it waits for somebody's decision. `release` is what its release is called,
    "" if that is not known.
    """

    generation: int
    phase: str
    ready: int
    wanted: int
    deadline: float | None
    canary: CanaryStatus | None = None
    release: str = ""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One service: the generation that serves, all workers, and the rollout under way, if any.

    `wanted` is the number of workers that the service is to have. `accept` is how its workers get
    connections: "shared" (from one queue), "per-worker" (each from its own queue) or "dispatch"
    (from the manager). `failures` is how many workers have failed in a row. `died` is how many of
    the workers that were stopped since the last commit ended by a signal or with a bad status.
    `release` is what the release of `generation` is called, "" if that is not known; if it is a
    rollback, which differs from the config, `rollback` is the generation that it brings back, else
    0. `hook` is the one that runs and is waited for, "before" or "ready"; "" if none does. For
    `recycle_pause` seconds no worker is recycled for a limit, as the last ones reached theirs as
    soon as they were ready; else None. `requests` are those that workers of `app` answered, None
    for other services; the next manager goes on counting.

    Since this manager started: `killed` is how many workers were killed after they had served;
    `repairs` are the last repairs of the service's listeners; `accepted` is how many connections
    the manager accepted and passed on, None if it does not do that for this service; `moved` is how
    many connections workers that have ended gave to others.
    """

    generation: int
    state: str
    workers: tuple[WorkerStatus, ...]
    rollout: RolloutStatus | None = None
    killed: int = 0
    died: int = 0
    repairs: tuple[str, ...] = ()
    wanted: int = 0
    accept: str = "shared"
    failures: int = 0
    counts: Counts = Counts()
    accepted: int | None = None
    moved: int = 0
    requests: Requests | None = None
    release: str = ""
    rollback: int = 0
    hook: str = ""
    recycle_pause: float | None = None

    @property
    def ready(self) -> int:
        """How many workers of the generation that serves are ready."""
        return sum(w.state == "ready" and w.generation == self.generation for w in self.workers)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a manager runs, by name."""

    manager: ManagerStatus
    listeners: dict[str, ListenerStatus]
    services: dict[str, ServiceStatus]


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log: a record of the manager, or a line that a worker printed.

    `source` is "sockmgr" or a worker's name; `service` is the service that the line is about, ""
    if it is about none; `event` is the kind of event that a record reports, "" for the line of a
    worker. `partial` is True if the line goes on in the next one of the same source, else absent.
    """

    time: float
    level: str
    source: str
    service: str
    event: str
    message: str
    partial: bool | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, as one record of the manager reports it.

    `id` is in microseconds since 1970, and grows from event to event, also across the managers of
    one name. `event` names the kind of the event, and `what` is the constant message of that kind.
    `service` and `worker` are "" and `generation` is 0 if the event is about none. `fields` has the
    other fields of the record.
    """

    id: int
    time: float
    level: str
    event: str
    service: str
    generation: int
    worker: str
    what: str
    why: str
    fields: dict[str, str]


class JournalPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where systemd's journal has the log: under the unit `unit`, of the system or of a user.

    `user` is the uid of the user whose systemd runs the unit, None for the system's.
    """

    unit: str
    user: int | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rollout, as it happens; `step` is that of a canary, 0 without."""

    service: str
    generation: int
    phase: str
    ready: int
    wanted: int
    seconds: float = 0.0
    message: str = ""
    step: int = 0

    def __str__(self) -> str:
        text = (
            f"{self.service}: generation {self.generation} {self.phase}, "
            f"{self.ready}/{self.wanted} ready, {self.seconds:.1f} s"
        )
        return f"{text}: {self.message}" if self.message else text


class DrainingGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """An older generation, and how many of its workers are draining."""

    generation: int
    workers: int


class WarmUp(msgspec.Struct, frozen=True, kw_only=True):
    """How the new workers were warmed up: by how many `requests`, and of these how many `failed`.

    Those have no answer, or a 5xx. `first` is the longest that any first request for a path took,
    `last` the longest of the last ones. `is_cut`: at least one worker had no time for all of them.
    """

    requests: int
    failed: int
    first: float
    last: float
    is_cut: bool = False


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout cost.

    `queue_peak` is the longest queue meanwhile, `overflows` how many connections the kernel
    refused. Old workers that have ended: `drained`, as they should; `died`, by a signal or with a
    bad status; `killed`, because they took too long. Old workers that have not ended: `draining`;
    `finishing` of these must end now, because more generations drain than max_draining allows.
    `draining_generations` has them by generation, oldest first (None from an earlier version).
    `moved` is how many connections those that have ended gave to other workers. `canary` is how the
    requests to the new generation were answered in the last step of its canary, beside those to the
    old one; None without one, and for workers that count no requests. `warm_up` is None without.
    """

    queue_peak: int
    overflows: int
    drained: int
    killed: int
    draining: int
    cutover: str
    died: int = 0
    finishing: int = 0
    draining_generations: tuple[DrainingGeneration, ...] | None = None
    moved: int = 0
    canary: Comparison | None = None
    warm_up: WarmUp | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout ended.

    `kept` is the generation that stays, 0 if none does. After an abort, `kept_ready` is how many of
    its workers are ready (None from an earlier version); if it is 0, nobody serves. `output` has
    the last lines of `worker`, the worker whose output explains the failure best. If only the
    journal has these lines, `journal` says where, because the manager may not be allowed to read
    them though the client is; then the first line of `output` says so.

    `release` is what the release of `generation` is called, "" if that is not known; `rollback` is
    the generation that it brings back, 0 if none.
    """

    service: str
    verdict: Literal["committed", "aborted"]
    generation: int
    seconds: float = 0.0
    reason: str
    receipt: Receipt
    kept: int
    kept_ready: int | None = None
    output: tuple[str, ...] = ()
    worker: str = ""
    journal: JournalPlace | None = None
    failed: str = ""
    release: str = ""
    rollback: int = 0

    @property
    def stays(self) -> str:
        """What serves after an abort, in words."""
        if not self.kept:
            return "no generation is serving"
        if self.kept_ready == 0:
            return f"generation {self.kept} stays, and none of its workers is ready"
        return f"generation {self.kept} keeps serving"


class Kind(StrEnum):
    """What happened to a path of the config."""

    ADD = "add"
    REMOVE = "remove"
    CHANGE = "change"


class Effect(StrEnum):
    """What a change of the config needs: nothing, a number, a rule, new workers, a socket."""

    NONE = "none"
    SCALE = "scale"
    POLICY = "policy"
    RELOAD = "reload"
    LISTENER = "listener"
    START = "start"
    STOP = "stop"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the config that runs and another; `text` describes it in one line.

    `old` and `new` are written as in a config; None stands for a value that is absent or secret.
    """

    kind: Kind
    path: str
    effect: Effect
    old: str | None = None
    new: str | None = None
    text: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a config would change; `applies` is whether a reload would read this config."""

    changes: tuple[Change, ...]
    applies: bool
