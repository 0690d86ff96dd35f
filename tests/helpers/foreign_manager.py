"""io.sockmgr.Manager as a program that only knows its description would declare it.

For asyncvarlink, which reads annotations as they stand: so they are not postponed here.
"""

import enum
from dataclasses import dataclass
from typing import TypedDict

import asyncvarlink


class Kind(enum.Enum):
    add = 1
    remove = 2
    change = 3


Effect = enum.Enum("Effect", "none scale policy reload listener start stop")


@dataclass
class Manager:
    pid: int
    version: str
    started: float
    refused: int
    config: str | None = None
    dispatcher: int | None = None
    stopping: bool = False


@dataclass
class Listener:
    address: str
    queue: int
    backlog: int
    cutover: str
    choice: str
    unreachable: str


@dataclass
class Worker:
    slot: int
    generation: int
    pid: int
    state: str
    rss: int
    age: float
    lease: int
    connections: int | None
    probe: str
    recycle: str


@dataclass
class Within:
    seconds: float
    requests: int


@dataclass
class Requests:
    answered: int
    failed: int
    seconds: float
    within: list[Within]


@dataclass
class Comparison:
    finding: str
    requests: int
    old_requests: int
    errors: float
    old_errors: float
    p95: float
    old_p95: float
    why: str
    wanted: int


@dataclass
class Canary:
    share: int
    step: int
    steps: int
    since: float
    left: float | None
    passed: bool
    compared: Comparison | None


@dataclass
class Rollout:
    generation: int
    phase: str
    ready: int
    wanted: int
    deadline: float | None
    canary: Canary | None
    release: str


@dataclass
class Counts:
    committed: int
    aborted: int
    started: int
    not_started: int
    drained: int
    unclean: int
    killed: int
    recycled: int
    exited: int
    crashed: int
    unready: int
    hung: int
    connections_lost: int
    max_rss: int
    max_requests: int
    max_age: int
    max_cpu_time: int


@dataclass
class Service:
    generation: int
    state: str
    workers: list[Worker]
    rollout: Rollout | None
    killed: int
    died: int
    repairs: list[str]
    wanted: int
    accept: str
    failures: int
    counts: Counts
    accepted: int | None
    moved: int
    requests: Requests | None
    release: str
    rollback: int
    hook: str
    recycle_pause: float | None


class Status(TypedDict):
    manager: Manager
    listeners: dict[str, Listener]
    services: dict[str, Service]


@dataclass
class Change:
    kind: Kind
    path: str
    effect: Effect
    old: str | None
    new: str | None
    text: str


class Plan(TypedDict):
    changes: list[Change]
    applies: bool


class ManagerInterface(asyncvarlink.VarlinkInterface, name="io.sockmgr.Manager"):
    @asyncvarlink.varlinkmethod
    def Status(self, *, sizes: bool | None = None) -> Status:
        raise NotImplementedError

    @asyncvarlink.varlinkmethod(return_parameter="workers")
    def Scale(self, *, service: str, workers: int, relative: bool | None = None) -> int:
        raise NotImplementedError

    @asyncvarlink.varlinkmethod
    def Plan(self, *, text: str | None = None, file: str | None = None) -> Plan:
        raise NotImplementedError
