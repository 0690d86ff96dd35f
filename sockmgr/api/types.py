"""What a manager says of itself: the status, a plan, the steps of a rollout and its verdict.

These key names are the public format of `--json` and of the Varlink interface. Seconds are
durations, `rss` is bytes, `deadline` and `age` are seconds from now and until now, `started` and
`time` are in seconds since 1970.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How often something happened to a service; the next manager goes on where this one was.

    Rollouts that `committed` and `aborted`; workers that `started`, could not be (`not_started`)
    and `hung`; and how they ended: told to, cleanly (`drained`) or not (`unclean`); `killed`, as
    they took too long; unasked, as it should be (`recycled`), with status 0 but at once (`exited`)
    or otherwise (`crashed`); or `unready`, before they ever were ready. `connections_lost` were
    those that workers had no files for.
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


class ManagerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The process that answers; so many reloads were `refused`, and did not even begin.

    `config` is the file that it reads, "" if it was started without one.
    """

    pid: int
    version: str
    started: float = 0.0
    refused: int = 0
    config: str | None = None


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One listener: `queue` connections wait of the `backlog` that may.

    `cutover` is how new connections leave an old generation: "steered" or "overlap". `choice` is
    how one of several queues gets a connection now: "round robin (eBPF)", "random (classic BPF)",
    or "one queue" if there are not several.
    """

    address: str
    queue: int
    backlog: int
    cutover: str
    choice: str = "one queue"


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process and its descendants; `lease` is the number of its queue.

    `connections`: how many it has, if the manager passes them to it.
    """

    slot: int
    generation: int
    pid: int
    state: str
    rss: int
    age: float
    lease: int = 0
    connections: int | None = None


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout under way: `ready` of the `wanted` workers of `generation`."""

    generation: int
    phase: str
    ready: int
    wanted: int
    deadline: float


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One service: the generation that serves, all workers, and the rollout if there is one.

    `wanted` is the number of workers that it is to have, and `accept` how they come by connections:
    "shared" (a queue), "per-worker" or "dispatch". Since this manager started: `killed` workers had
    served and did not end by themselves, and `repairs` are the last things that were done to its
    listeners and had to be mended. `failures`: how many workers failed one after another. `died`:
    how many of the workers that were told to stop since the last commit ended by a signal or with a
    bad status. `accepted`: how many connections it accepted and passed on, if it does that for this
    service.
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


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a manager runs, by name."""

    manager: ManagerStatus
    listeners: dict[str, ListenerStatus]
    services: dict[str, ServiceStatus]


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log: a record of the manager, or what a worker printed.

    `time` is in seconds since 1970; `source` is "sockmgr" or a worker's name; `service` is the one
    that it is about, "" if none is; `event` says what a record tells of, "" if it is no record.
    `partial`, told only if it is so: more of a long line comes, with the same source.
    """

    time: float
    level: str
    source: str
    service: str
    event: str
    message: str
    partial: bool | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, as one record of the manager tells it.

    `id` is in microseconds since 1970 and higher than that of each event before, in whichever
    manager of this name; `time` is in seconds since 1970. `what` is constant for its kind, which
    `event` names; `service` and `worker` are "" and `generation` is 0 if it is about none. `fields`
    is what else the record says.
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
    """Where the log is when systemd's journal has it: the unit, of the system or of a user's."""

    unit: str
    user: int | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rollout, as it happens."""

    service: str
    generation: int
    phase: str
    ready: int
    wanted: int
    seconds: float
    message: str = ""


class DrainingGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """An older generation of which so many workers have been told to stop and have not ended."""

    generation: int
    workers: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout cost: the longest queue, connections the kernel refused, old workers.

    Those that ended: as they should (`drained`), by a signal or with a bad status (`died`), or as
    they took too long (`killed`). Those that have not: `draining`, of which `finishing` are to end
    now, since more generations drain than max_draining allows. `draining_generations` says whose
    workers those are, oldest first (None: a manager of an earlier version does not say).
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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout ended.

    `kept` is the generation that stays, 0 if none does. After an abort, `kept_ready` of its workers
    are ready (None: an older manager does not say); with 0, nobody serves. `output` has the last
    lines of the `worker` whose output explains most. If only the journal has them, `journal` says
    where: the manager may not read it, the client perhaps may, and the first line says so instead.
    """

    service: str
    verdict: Literal["committed", "aborted"]
    generation: int
    seconds: float
    reason: str
    receipt: Receipt
    kept: int
    kept_ready: int | None = None
    output: tuple[str, ...] = ()
    worker: str = ""
    journal: JournalPlace | None = None

    @property
    def stays(self) -> str:
        """What goes on after an abort, in words."""
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
    """What a change takes: nothing, a number, a new rule, new workers, a socket."""

    NONE = "none"
    SCALE = "scale"
    POLICY = "policy"
    RELOAD = "reload"
    LISTENER = "listener"
    START = "start"
    STOP = "stop"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between what runs and a config; `text` is its line for a person.

    `old` and `new` are as a person would write them; None for what is not there, or is secret.
    """

    kind: Kind
    path: str
    effect: Effect
    old: str | None = None
    new: str | None = None
    text: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a config would change; `applies` tells whether it is the one that a reload reads."""

    changes: tuple[Change, ...]
    applies: bool
