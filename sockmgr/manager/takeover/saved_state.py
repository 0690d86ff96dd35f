"""What has been saved for the next manager so far: descriptors in the store, records in the state.

A save costs O(what has changed since the last one), and a copy of the bytes of the whole state. Two
promises hold at every instant, for SIGKILL may come at any:

- A process that was started is in the store before the event loop goes on, by its pidfd. Until the
  state names it too, a moment later, the next manager stops what it finds there under the name of a
  worker. Where nobody knew it, it would take connections for ever.
- Descriptors are stored before the state names them, and forgotten after it names them no more. A
  manager that is killed in between may leave some that no state names, which do no harm, but never
  a state whose sockets are missing, which could not be used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, cast

import msgspec

from sockmgr.config.config import Config
from sockmgr.config.spec import Address
from sockmgr.fleet.messages import WorkerId
from sockmgr.fleet.pieces import Pieces
from sockmgr.fleet.snapshot import ProcessSnapshot, Snapshot, as_json
from sockmgr.kernel.process import pid_of
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.dispatch.dispatcher import Dispatcher
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.events import EventLog
from sockmgr.manager.service.processes import written
from sockmgr.manager.service.service import Service
from sockmgr.manager.takeover.state import FOUND, RENEWED, STATE, StateMemory, boot_id
from sockmgr.manager.takeover.store import Store
from sockmgr.manager.workers.worker import WorkerProcess

log = Log("sockmgr")

Holdings = dict[str, tuple[object, tuple[int, ...]]]  # by name: what it is, and the descriptors


class Configured(Protocol):
    """The config in force, the one that was loaded last, and the services by name."""

    config: Config
    newest: Config | None
    by_name: dict[str, Service]


@dataclass(frozen=True, slots=True)
class Present:
    """What there is to save, whenever it is looked at."""

    services: Configured
    listeners: Listeners
    history: EventLog
    dispatcher: Dispatcher


class SavedState:
    """What has been saved so far, in the store and in the state; all descriptors are borrowed."""

    def __init__(self, store: Store, state: StateMemory, held: Mapping[str, object]) -> None:
        """Begin with what the store has held since a predecessor: by name what it is, or FOUND."""
        self._store, self._state = store, state
        self._held: dict[str, object] = dict(held)
        self._own: Holdings = {}
        self._listeners: dict[Address, _SavedListener] = {}
        self._services: dict[str, _SavedService] = {}
        self._configs: dict[str, tuple[Config | None, msgspec.Raw]] = {}  # the last of each key
        self._written: bytes | None = None
        self._can_write = True
        self._is_anew = True  # all is to be looked at, whether it has changed or not
        self.is_complete = True  # whether the store took all that it was given

    def update(self, present: Present, others: Mapping[str, int]) -> None:
        """Save what has changed. O(workers that have), and a copy of the bytes of all.

        `others` are descriptors of the manager itself by name, -1 for one that is not open.
        """
        self.is_complete = True
        known, there = self._services, present.services.by_name
        if any(name in known and known[name].of is not there[name] for name in there):
            self._is_anew, self._services = True, {}  # one ended, and another has its name
        every = present.services.by_name.values()
        services = [s for s in every if s.unsaved or s.processes.changed or self._is_anew]
        gone = self._look_at_listeners(present, services)
        for service in services:
            gone += self._look_at(service)
        for name in self._services.keys() - present.services.by_name.keys():
            gone += self._services.pop(name).names
        # The state comes last: where it is, all of which it tells is held as well.
        before, self._own = self._own, self._of_us(others)
        gone += self._exchange(before, self._own)
        if self._is_anew:  # what a predecessor stored, and is nobody's now
            gone += self._held.keys() - self._names()
        if self._write(present):
            self._forget(gone)  # else the state that is there names them still
        self._is_anew = not self.is_complete

    def store_spawned(self, service: Service) -> bool:
        """Store the descriptors of the workers that were just started. O(those).

        Return whether the state can wait. It cannot if it names another process for one of them,
        which has ended: a pid of that one and a pidfd of this one would be taken for one worker.
        """
        fresh = service.processes.fresh
        saved = self._services.setdefault(service.name, _SavedService(service))
        for id in fresh:
            if running := service.processes.running.get(id):
                found = self._of_worker(running)
                self._exchange({}, found)
                # No mark is like this one: it is to be looked at, also if it has ended by then.
                saved.marks[id], saved.holdings[id] = (), found
        queues = _of_queues(service)  # a new generation may have another
        self._exchange({}, queues)
        saved.queues = saved.queues | queues
        renamed = not fresh.isdisjoint(saved.processes)
        fresh.clear()
        reached(Point.SPAWNED_STORED)
        return not renamed

    def descriptors(
        self, present: Present, others: Mapping[str, int]
    ) -> dict[str, tuple[int, ...]]:
        """Return all descriptors by name, for the new code that this process becomes."""
        found = self._of_us(others)
        for listener in present.listeners.all:
            found |= self._of_listener(listener)
        for service in present.services.by_name.values():
            found |= _of_queues(service) | _of_hook(service)
            for running in service.processes.running.values():
                found |= self._of_worker(running)
        descriptors = {name: fds for name, (_, fds) in found.items()}
        for listener in present.listeners.all:
            passed = [listener.queues[n] for n in sorted(listener.systemds)]
            descriptors[listener.listen.name] = tuple(queue.fileno() for queue in passed)
        return descriptors

    def write_anew(self) -> None:
        """Have the next update write the state even if nothing has changed."""
        self._written = None

    def start_anew(self) -> None:
        """Have the next update store everything again, since the store has lost what it held."""
        self._held.clear()
        self._is_anew = True

    def revoke(self) -> None:
        """Have the store hold nothing any more."""
        self._forget(set(self._held))

    # --- What has changed ------------------------------------------------------------------------

    def _look_at_listeners(self, present: Present, services: Iterable[Service]) -> list[str]:
        """Store what has changed of the listeners of these services, and of new and closed ones.

        Returns the names under which nothing is to be held any more.
        """
        gone: list[str] = []
        touched = {address for service in services for address in service.addresses}
        there = {listener.listen.address: listener for listener in present.listeners.all}
        for address in self._listeners.keys() - there.keys():
            # Not what was never held: a name that is free may be another listener's from now on.
            gone += self._held.keys() & self._listeners.pop(address).holdings.keys()
        for address, listener in there.items():
            before, queues = self._listeners.get(address), tuple(listener.inodes)
            is_known = before and (before.of, before.queues) == (listener, queues)
            if self._is_anew or not is_known or address in touched:
                users = [s for s in present.services.by_name.values() if address in s.addresses]
                record = as_json(opening.written(listener, _settled(users)))
                saved = _SavedListener(listener, queues, self._of_listener(listener), record)
                gone += self._exchange(before.holdings if before else {}, saved.holdings)
                self._listeners[address] = saved
        return gone

    def _look_at(self, service: Service) -> list[str]:
        """Do so for what has changed of a service."""
        saved = self._services.setdefault(service.name, _SavedService(service))
        gone: list[str] = []
        changed: list[WorkerId] = []
        workers = service.processes.changed
        if self._is_anew:
            workers = workers | service.processes.running.keys() | saved.marks.keys()
        for id in workers:
            running = service.processes.running.get(id)
            mark = _mark(running) if running else None
            if self._is_anew or saved.marks.get(id) != mark:
                found = self._of_worker(running) if running else {}
                gone += self._exchange(saved.holdings.get(id, {}), found)
                saved.note(id, running, mark, found)
                changed.append(id)
        before, saved.queues = saved.queues, _of_queues(service)
        gone += self._exchange(before, saved.queues)
        before, saved.hook = saved.hook, _of_hook(service)
        gone += self._exchange(before, saved.hook)
        service.unsaved = False
        service.processes.fresh.clear()
        service.processes.changed.clear()
        self._write_down(service, saved, changed)
        return gone

    def _write_down(
        self, service: Service, saved: _SavedService, changed: Iterable[WorkerId]
    ) -> None:
        saved.record = saved.pieces.record(
            service.name,
            service.fleet,
            saved.processes,
            changed,
            service.past.history.record,
            service.hooks.written,
        )
        saved.figures = as_json(service.processes.figures.ended)
        saved.course = as_json(service.processes.comparing.course)

    def _exchange(self, before: Holdings, now: Holdings) -> list[str]:
        """Hold what is new in `now`; return the names of what is not in it any more."""
        for name, (identity, fds) in now.items():
            # What a predecessor stored is known by its name only, and the name is trusted.
            if self._held.get(name) not in (identity, FOUND) and not self._store.keep(name, fds):
                self.is_complete = False
            else:
                self._held[name] = identity
                reached(Point.DESCRIPTOR_STORED)
        return [name for name in before if name not in now]

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._held:
                self._store.forget(name)
                del self._held[name]
                reached(Point.DESCRIPTOR_FORGOTTEN)

    # --- What there is ---------------------------------------------------------------------------

    def _of_us(self, others: Mapping[str, int]) -> Holdings:
        own: Holdings = {STATE: (self._state.fds, self._state.fds)}
        return own | _known_by_inode(others)

    def _of_worker(self, running: WorkerProcess) -> Holdings:
        if not running.pid:  # its template has not made it yet
            return {}
        identity = (running.process.pid, running.process.started)
        if running.name in self._held:  # without labels, as earlier versions stored it
            return {running.name: (identity, tuple(running.descriptors.values()))}
        labelled = running.descriptors.items()
        return {f"{running.name}/{role}": (identity, (fd,)) for role, fd in labelled}

    def _of_listener(self, listener: Listener) -> Holdings:
        found: Holdings = {}
        for n, (queue, inode) in enumerate(zip(listener.queues, listener.inodes, strict=True)):
            if n not in listener.systemds:
                name = f"{listener.listen.name}#{n}"
                # The state on disk may name the queue that had this place, so its name is taken.
                if self._held.get(name, inode) != inode:
                    name += RENEWED
                found[name] = inode, (queue.fileno(),)
        return found

    def _names(self) -> set[str]:
        listeners = (name for saved in self._listeners.values() for name in saved.holdings)
        workers = (name for saved in self._services.values() for name in saved.names)
        return {*self._own, *listeners, *workers}

    def _write(self, present: Present) -> bool:
        """Write the state if it has changed; return whether the one that is there is the newest."""
        config, newest = present.services.config, present.services.newest
        there = (s.name for s in present.services.by_name.values() if not s.fleet.stopped)
        going_on = [name for name in there if name in self._services]
        services = [self._services[name].record for name in going_on]
        since, events = present.history.kept
        state = as_json(
            Snapshot(
                boot_id=boot_id(),
                # JSON stands where the types promise records: it is taken as it is.
                config=cast("Any", self._config("config", config)),
                newest=cast("Any", self._config("newest", None if newest == config else newest)),
                listeners=cast("Any", [saved.record for saved in self._listeners.values()]),
                services=cast("Any", services),
                events=events,
                events_since=since,
                counts=present.history.tally.kept,
                refused=present.history.tally.refused,
                dispatcher=present.dispatcher.written,
                moves=dict(chain.from_iterable(map(_inodes, self._services.values()))),
                figures=cast("Any", {n: self._services[n].figures for n in going_on}),
                courses=cast("Any", {n: self._services[n].course for n in going_on}),
            )
        )
        return self._write_body(bytes(state))

    def _config(self, key: str, config: Config | None) -> msgspec.Raw:
        """Return a config as JSON, which is made anew only if it is another one."""
        if key not in self._configs or self._configs[key][0] is not config:
            self._configs[key] = config, as_json(config)
        return self._configs[key][1]

    def _write_body(self, body: bytes) -> bool:
        if body != self._written:
            try:
                self._state.write(body)
            except OSError as error:  # there is no memory for it
                tell = log.error if self._can_write else log.debug
                tell("state not saved", because=error.strerror, tried_again_in="1 s",
                     means="the next manager would go on from an older one")  # fmt: skip
                self._can_write = self.is_complete = False
                return False
            self._written, self._can_write = body, True
        return True


@dataclass(slots=True)
class _SavedListener:
    of: Listener
    queues: tuple[int, ...]  # by inode: who had a lease last may have the listener no more
    holdings: Holdings
    record: msgspec.Raw


@dataclass(slots=True)
class _SavedService:
    of: Service
    pieces: Pieces = field(default_factory=Pieces)
    record: msgspec.Raw = field(default_factory=msgspec.Raw)
    figures: msgspec.Raw = field(default_factory=msgspec.Raw)
    course: msgspec.Raw = field(default_factory=msgspec.Raw)
    marks: dict[WorkerId, object] = field(default_factory=dict)
    processes: dict[WorkerId, ProcessSnapshot] = field(default_factory=dict)
    holdings: dict[WorkerId, Holdings] = field(default_factory=dict)
    queues: Holdings = field(default_factory=dict)
    hook: Holdings = field(default_factory=dict)

    @property
    def names(self) -> Iterator[str]:
        return (name for part in (self.queues, self.hook, *self.holdings.values()) for name in part)

    def note(
        self, id: WorkerId, running: WorkerProcess | None, mark: object, found: Holdings
    ) -> None:
        """Know what is saved of one worker by now; it is gone if none is `running`."""
        if running is None:
            for known in (self.marks, self.processes, self.holdings):
                known.pop(id, None)
            return
        self.marks[id], self.holdings[id] = mark, found
        if running.pid:
            self.processes[id] = written(running)


def _mark(running: WorkerProcess) -> object:
    """Return what changes whenever the descriptors or the record of a worker's process do."""
    process = running.process
    told = running.ready, running.heard, running.stopping, running.stopped_descendants
    return process.pid, process.started, running.channel, running.descriptors, told


def _known_by_inode(descriptors: Mapping[str, int]) -> Holdings:
    return {n: (_number_of(fd), (fd,)) for n, fd in descriptors.items() if fd >= 0}


def _number_of(fd: int) -> int:
    """Return what sets a socket or a pidfd apart; a pidfd has an inode only since Linux 6.9."""
    found = os.fstat(fd)
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else pid_of(fd)


def _of_queues(service: Service) -> Holdings:
    """Return the queues by which the workers of a service give each other connections."""
    return _known_by_inode(service.processes.moves.descriptors)


def _of_hook(service: Service) -> Holdings:
    """Return what the next manager needs of the hook that runs."""
    # A pipe by its inode; a pidfd has none before Linux 6.9.
    found = service.hooks.descriptors
    return {name: ((os.fstat(fd).st_ino, pid_of(fd)), (fd,)) for name, fd in found.items()}


def _inodes(saved: _SavedService) -> Iterator[tuple[str, int]]:
    """Yield the move queues by name, each with what tells it apart in another process."""
    yield from ((name, cast("int", number)) for name, (number, _) in saved.queues.items())


def _settled(users: Iterable[Service]) -> Set[int]:
    """Return the leases that workers of these services have, and none that boots."""
    # A worker that boots may be about to set O_NONBLOCK, which everybody who holds the socket
    # shares. If we wrote down what it is now, the next manager would undo that.
    fleets = [service.fleet for service in users]
    held = {lease for fleet in fleets for lease in fleet.held}
    return held - {lease for fleet in fleets for lease in fleet.booting}
