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


@dataclass
class Listener:
    address: str
    queue: int
    backlog: int
    cutover: str
    choice: str


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


@dataclass
class Rollout:
    generation: int
    phase: str
    ready: int
    wanted: int
    deadline: float


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
