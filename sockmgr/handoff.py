"""What one manager leaves to the next: kept up to date while it runs, and taken over at its start.

Descriptors go to a store that outlives the manager, each under a name; what they are is written
down in the state. `http#3` is queue 3 of listener http, `web@7.2` a worker's pidfd and the pipe
that it writes to, `@state` the state itself.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sockmgr.core import snapshot
from sockmgr.core.config import Config
from sockmgr.core.model import Phase, Spec, State, WorkerId
from sockmgr.core.snapshot import (
    GenerationSnapshot,
    ProcessSnapshot,
    ServiceSnapshot,
    Snapshot,
    WorkerSnapshot,
)
from sockmgr.kernel import process
from sockmgr.kernel.process import Process
from sockmgr.kernel.queues import inode
from sockmgr.listener import Listener
from sockmgr.listeners import Listeners
from sockmgr.log import Log
from sockmgr.running import Survivor
from sockmgr.service import Service

log = Log("sockmgr")

STATE = "@state"
_WORKER = re.compile(r"(.+)@(\d+)\.(\d+)", re.ASCII)
LIFELINE = "@lifeline"  # whose end tells the guard that nobody can come back
_FOUND = object()  # what a name stands for that a predecessor left
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Store(Protocol):
    """What holds descriptors beyond our death."""

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Hold duplicates of `fds`, which are borrowed, under `name`, and nothing else there."""

    def forget(self, name: str) -> None:
        """Hold nothing under `name` any more."""


# --- Keeping -------------------------------------------------------------------------------------


class Memory:
    """The state in two memfds, written in turn, so that one is always whole."""

    def __init__(self, fds: Sequence[int], serial: int) -> None:
        """Own these, a predecessor's, or make two; `serial` was written last."""
        whole = len(fds) == 2
        self.fds = tuple(fds) if whole else (_memfd("state 1"), _memfd("state 2"))
        for fd in () if whole else fds:
            os.close(fd)
        self._serial = serial

    def write(self, state: Snapshot) -> None:
        """Write the state over the older of the two."""
        self._serial += 1
        data = snapshot.encode(state, serial=self._serial)
        fd = self.fds[self._serial % 2]
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)

    @property
    def latest(self) -> int:
        """The one that was written last, borrowed."""
        return self.fds[self._serial % 2]

    def close(self) -> None:
        """Close both."""
        for fd in self.fds:
            os.close(fd)


def _memfd(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


class Nobody:
    """The store of a manager that has none: its sockets and workers end with it."""

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Hold nothing."""

    def forget(self, name: str) -> None:
        """Hold nothing."""


class Will:
    """Has the store hold what is there now, and the state tell of it; call `update` on changes."""

    def __init__(self, store: Store, state: Memory, held: Iterable[str]) -> None:
        """Know that the store holds something under these names already, from a predecessor."""
        self._store, self._state = store, state
        self._held: dict[str, object] = dict.fromkeys(held, _FOUND)
        self._written: Snapshot | None = None

    def update(
        self,
        config: Config,
        listeners: Listeners,
        services: Mapping[str, Service],
        lifeline: int = -1,
    ) -> None:
        """Make the store and the state agree with what runs; all descriptors are borrowed."""
        wanted = self._holdings(listeners, services, lifeline)
        for name, (identity, fds) in wanted.items():
            if self._held.get(name) not in (identity, _FOUND):
                self._store.keep(name, fds)
            self._held[name] = identity
        state = _snapshot(config, listeners, services.values())
        if state != self._written:
            self._state.write(state)
            self._written = state
        self._forget(self._held.keys() - wanted.keys())

    def descriptors(
        self, listeners: Listeners, services: Mapping[str, Service], lifeline: int = -1
    ) -> dict[str, tuple[int, ...]]:
        """Return everything by name, borrowed, for this process itself as new code."""
        wanted = self._holdings(listeners, services, lifeline)
        found = {name: fds for name, (_, fds) in wanted.items()}
        for listener in listeners.all:
            passed = listener.queues[: listener.passed]
            found[listener.listen.name] = tuple(queue.fileno() for queue in passed)
        return found

    def start_anew(self) -> None:
        """Know that the store holds nothing any more, so that all is kept at the next update."""
        self._held.clear()

    def revoke(self) -> None:
        """Leave nothing to anybody: all has ended."""
        self._forget(set(self._held))

    def _holdings(
        self, listeners: Listeners, services: Mapping[str, Service], lifeline: int
    ) -> dict[str, tuple[object, tuple[int, ...]]]:
        """Return by name what a descriptor is, so that another one is noticed, and the numbers."""
        found: dict[str, tuple[object, tuple[int, ...]]] = {
            STATE: (self._state.fds, self._state.fds)
        }
        if lifeline >= 0:
            found[LIFELINE] = (os.fstat(lifeline).st_ino, (lifeline,))
        for listener in listeners.all:
            for n, queue in enumerate(listener.queues):
                if n >= listener.passed:  # systemd holds what it passed
                    found[f"{listener.listen.name}#{n}"] = (inode(queue), (queue.fileno(),))
        for service in services.values():
            for running in service.running.values():
                identity = (running.process.pid, running.process.started)
                found[running.name] = (identity, running.descriptors)
        return found

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._store.forget(name)
            del self._held[name]


def _snapshot(config: Config, listeners: Listeners, services: Iterable[Service]) -> Snapshot:
    return Snapshot(
        boot_id=boot_id(),
        config=config,
        listeners=tuple(listener.written() for listener in listeners.all),
        services=tuple(service.written() for service in services if not service.fleet.stopped),
    )


def boot_id() -> str:
    """Return what this boot of the machine is called."""
    return _BOOT_ID.read_text().strip()


# --- Taking over ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Estate:
    """What a predecessor left. Owns `descriptors` until they are taken."""

    descriptors: dict[str, list[int]]
    state: Snapshot | None = None
    flaw: str = ""
    serial: int = 0
    names: frozenset[str] = frozenset()  # what the store holds
    _memfds: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, descriptors: dict[str, list[int]]) -> Estate:
        """Read the state that is among these descriptors, if there is one."""
        # A plain name is that of a socket unit, which holds its sockets itself.
        names = frozenset(name for name in descriptors if set(name) & set("@#"))
        estate = cls(descriptors, names=names, _memfds=descriptors.get(STATE, []))
        written = [_read(fd) for fd in estate._memfds]
        try:
            found = snapshot.latest(written)
        except snapshot.SnapshotError as error:
            estate.flaw = error.what
            return estate
        if found is None or found.state.boot_id != boot_id():
            return estate
        estate.serial = found.serial
        there = {os.fstat(fd).st_ino for fds in descriptors.values() for fd in fds}
        missing = {n for listener in found.state.listeners for n in listener.inodes} - there
        if missing:
            estate.flaw = f"{len(missing)} of the sockets that the state tells of are missing"
        else:
            estate.state = found.state
        return estate

    def memory(self) -> Memory:
        """Return what the state is written to from now on; the caller owns it."""
        return Memory(self.descriptors.pop(STATE, []), self.serial)

    def take_sockets(self) -> dict[str, list[socket.socket]]:
        """Return all sockets by name; the caller owns them from now on."""
        found: dict[str, list[socket.socket]] = {}
        for name in [name for name in self.descriptors if "@" not in name]:
            for fd in self.descriptors.pop(name):
                sock = socket.socket(fileno=fd)
                sock.set_inheritable(False)
                found.setdefault(name, []).append(sock)
        return found

    def take_queues(self) -> dict[str, list[socket.socket]]:
        """Return all sockets by listener and in the order of their leases, as far as names tell.

        What a socket unit passes comes first, as it did when the first manager was started.
        """
        found: dict[str, list[socket.socket]] = {}
        named = self.take_sockets()
        for name in sorted(named, key=_number):
            found.setdefault(name.partition("#")[0], []).extend(named[name])
        return found

    def take_strangers(self, service: str) -> dict[WorkerId, Survivor]:
        """Return the workers of a service by their names only, when no state tells of them."""
        found: dict[WorkerId, Survivor] = {}
        for name in [name for name in self.descriptors if _WORKER.fullmatch(name)]:
            whose, generation, slot = _WORKER.fullmatch(name).groups()  # type: ignore[union-attr]
            fds = self.descriptors[name]
            pidfds = [fd for fd in fds if not _is_pipe(fd)]
            pid = process.pid_of(pidfds[0]) if whose == service and pidfds else 0
            if pid:
                del self.descriptors[name]
                told = ProcessSnapshot(pid=pid, started=process.start_time(pid))
                found[WorkerId(int(generation), int(slot))] = _owned(told, fds, since=0.0)
        return found

    def take_survivors(self, service: ServiceSnapshot) -> dict[WorkerId, Survivor]:
        """Return the workers of one service whose processes can be found, dead ones too."""
        found: dict[WorkerId, Survivor] = {}
        for generation in service.generations:
            for worker in generation.workers:
                id = WorkerId(generation.number, worker.slot)
                fds = self.descriptors.pop(f"{service.name}@{id}", [])
                if survivor := _survivor(worker, fds):
                    found[id] = survivor
        return found

    def close(self) -> None:
        """Close what nobody took: of a worker that nobody wants, or of a kind we do not know."""
        for name, fds in self.descriptors.items():
            log.warning("descriptor left by another manager closed", name=name, number=len(fds))
            for fd in fds:
                if _WORKER.fullmatch(name) and process.pid_of(fd):
                    signal.pidfd_send_signal(fd, signal.SIGTERM)
                os.close(fd)
        self.descriptors.clear()


def check(fd: int) -> str:
    """Say in a line what the state in `fd`, a borrowed memfd, tells; raise SnapshotError if not."""
    state = snapshot.decode(_read(fd))
    workers = [w for s in state.services for g in s.generations for w in g.workers]
    return f"services: {len(state.services)}, workers: {len(workers)}; all can be taken over"


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _survivor(worker: WorkerSnapshot, fds: Sequence[int]) -> Survivor | None:
    told = worker.process
    if told is None:
        return None
    if all(map(_is_pipe, fds)):  # its pidfd did not get into the store
        if process.start_time(told.pid) != told.started:
            return None
        fds = [*fds, os.pidfd_open(told.pid)]
        if process.start_time(told.pid) != told.started:  # reused between the two
            for fd in fds:
                os.close(fd)
            return None
    ready = worker.state is not State.STARTING
    return _owned(told, fds, since=worker.since, ready=ready)


def _owned(
    told: ProcessSnapshot, fds: Sequence[int], *, since: float, ready: bool = True
) -> Survivor:
    for fd in fds:
        os.set_inheritable(fd, False)
    return Survivor(
        process=Process(told.pid, pidfd=next(fd for fd in fds if not _is_pipe(fd))),
        output=next(filter(_is_pipe, fds), -1),
        since=since,
        ready=ready,
        told=told.told,
    )


def _is_pipe(fd: int) -> bool:
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def _number(name: str) -> int:
    return int(name.partition("#")[2] or -1)


def guessed(
    spec: Spec, workers: Mapping[WorkerId, Survivor], listeners: Sequence[Listener]
) -> ServiceSnapshot:
    """Return the records of these workers as if they ran `spec`, so that it can replace them."""
    numbers = sorted({id.generation for id in workers})
    leases = {id: _lease(survivor, listeners) for id, survivor in workers.items()}
    generations = []
    for number in numbers:
        mine = {id: survivor for id, survivor in workers.items() if id.generation == number}
        lease = leases[min(mine)]
        records = [
            WorkerSnapshot(slot=id.slot, lease=lease, since=0.0, deadline=None,
                           state=State.READY, ready_at=0.0)
            for id in mine
        ]  # fmt: skip
        phase = Phase.CURRENT if number == numbers[-1] else Phase.RETIRING
        generations.append(
            GenerationSnapshot(number=number, spec=spec, lease=lease, wanted=len(mine), since=0.0,
                               deadline=0.0, phase=phase, workers=tuple(records))
        )  # fmt: skip
    fed = generations[-1].lease
    others = {lease for lease in leases.values() if lease != fed}
    return ServiceSnapshot(
        name=spec.service,
        last=numbers[-1],
        current=numbers[-1],
        trial=0,
        served=True,
        generations=tuple(generations),
        fed=((fed, 1),),
        unquiet=tuple((lease, 0.0) for lease in sorted(others)),
    )


def _lease(worker: Survivor, listeners: Sequence[Listener]) -> int:
    holds = process.sockets_of(worker.process.pid)
    for listener in listeners:
        for n, queue in enumerate(listener.queues):
            if inode(queue) in holds:
                return n
    return 0
