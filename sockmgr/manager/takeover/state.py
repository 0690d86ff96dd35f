"""What one manager leaves to the next, kept up to date while it runs.

Descriptors go to a store that outlives the manager, each under a name; what they are is written
down in the state. `http#3` is queue 3 of the listener http, `web@7.2/pidfd` the pidfd of a worker
and `web@7.2/output` the pipe that it writes to, `@state` the state itself.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sockmgr.config.config import Config
from sockmgr.fleet import snapshot
from sockmgr.fleet.messages import State
from sockmgr.fleet.snapshot import Snapshot
from sockmgr.kernel import private
from sockmgr.kernel.queues import inode
from sockmgr.log import Log
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.events import EventLog
from sockmgr.manager.service.service import Service

log = Log("sockmgr")

STATE = "@state"
LIFELINE = "@lifeline"  # whose end tells the guard that nobody can come back
NOTIFY = "@notify"  # what workers say READY=1 to, also while there is no manager
FOUND = object()  # what a name stands for that a predecessor left
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Store(Protocol):
    """What holds descriptors beyond our death."""

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        """Hold duplicates of `fds`, which are borrowed, under `name`, and nothing else there.

        False if that has failed, and may be tried again.
        """

    def forget(self, name: str) -> None:
        """Hold nothing under `name` any more."""


# --- Keeping -------------------------------------------------------------------------------------


class StateMemory:
    """The state in two memfds, written in turn, so that one is always whole."""

    def __init__(self, fds: Sequence[int], serial: int, copy: Path | None = None) -> None:
        """Own these, a predecessor's, or make two; `serial` was written last.

        `copy` is a file with the same, for when nobody has kept the memfds.
        """
        self._copy = copy
        whole = len(fds) == 2
        self.fds = tuple(fds) if whole else (_memfd("state 1"), _memfd("state 2"))
        for fd in () if whole else fds:
            os.close(fd)
        self._serial = serial
        self._is_behind = False  # the copy could not be written

    def write(self, state: Snapshot) -> None:
        """Write the state over the older of the two."""
        self._serial += 1
        data = snapshot.encode(state, serial=self._serial)
        fd = self.fds[self._serial % 2]
        os.ftruncate(fd, 0)
        private.write_all(fd, data)
        if self._copy:
            self._write_copy(self._copy, data)

    @property
    def latest(self) -> int:
        """The one that was written last, borrowed."""
        return self.fds[self._serial % 2]

    @property
    def is_copied(self) -> bool:
        """Whether the copy is where it is to be, if there is to be one."""
        return self._copy is None or self._copy.exists()

    def remove_copy(self) -> None:
        """Leave no file behind."""
        if self._copy:
            self._copy.unlink(missing_ok=True)

    def _write_copy(self, path: Path, data: bytes) -> None:
        # It holds the environment of the workers, so it is for our eyes only. Not fsync'ed: in
        # another boot of the machine it means nothing.
        try:
            private.write_file(path, data)
        except OSError as error:
            tell = log.debug if self._is_behind else log.warning
            tell("no copy of the state", path=path, error=error.strerror)
            self._is_behind = True
        else:
            self._is_behind = False

    def close(self) -> None:
        """Close both."""
        for fd in self.fds:
            os.close(fd)


def _memfd(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


class NoStore:
    """The store of a manager that has none: its sockets and workers end with it."""

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        """Hold nothing, and miss nothing."""
        del name, fds
        return True

    def forget(self, name: str) -> None:
        """Hold nothing."""


class SavedState:
    """Has the store hold what is there now, and the state tell of it; call `update` on changes."""

    def __init__(self, store: Store, state: StateMemory, held: Mapping[str, object]) -> None:
        """Know what the store holds already, from a predecessor: by name what it is, or FOUND."""
        self._store, self._state = store, state
        self._held: dict[str, object] = dict(held)
        self._written: Snapshot | None = None
        self.is_complete = True  # the store holds all that it was given to keep

    def update(
        self,
        config: Config,
        listeners: Listeners,
        services: Mapping[str, Service],
        others: Mapping[str, int],
        history: EventLog,
    ) -> None:
        """Make the store and the state agree with what runs; all descriptors are borrowed.

        `others` are single ones of the manager itself by name, -1 where there is none.
        """
        wanted = self._holdings(listeners, services, others)
        self.is_complete = True
        for name, (identity, fds) in wanted.items():
            if self._held.get(name) not in (identity, FOUND) and not self._store.keep(name, fds):
                self.is_complete = False
            else:
                self._held[name] = identity
        state = _snapshot(config, listeners, services.values(), history)
        if state != self._written:
            self._state.write(state)
            self._written = state
        self._forget(self._held.keys() - wanted.keys())

    def descriptors(
        self, listeners: Listeners, services: Mapping[str, Service], others: Mapping[str, int]
    ) -> dict[str, tuple[int, ...]]:
        """Return everything by name, borrowed, for this process itself as new code."""
        wanted = self._holdings(listeners, services, others)
        found = {name: fds for name, (_, fds) in wanted.items()}
        for listener in listeners.all:
            passed = listener.queues[: listener.passed]
            found[listener.listen.name] = tuple(queue.fileno() for queue in passed)
        return found

    def write_anew(self) -> None:
        """Write the state at the next update, though nothing has changed."""
        self._written = None

    def start_anew(self) -> None:
        """Know that the store holds nothing any more, so that all is kept at the next update."""
        self._held.clear()

    def revoke(self) -> None:
        """Leave nothing to anybody: all has ended."""
        self._forget(set(self._held))

    def _holdings(
        self, listeners: Listeners, services: Mapping[str, Service], others: Mapping[str, int]
    ) -> dict[str, tuple[object, tuple[int, ...]]]:
        """Return by name what a descriptor is, so that another one is noticed, and the numbers."""
        found: dict[str, tuple[object, tuple[int, ...]]] = {
            STATE: (self._state.fds, self._state.fds)
        }
        for name, fd in others.items():
            if fd >= 0:
                found[name] = (os.fstat(fd).st_ino, (fd,))
        for listener in listeners.all:
            for n, queue in enumerate(listener.queues):
                if n >= listener.passed:  # systemd holds what it passed
                    found[f"{listener.listen.name}#{n}"] = (inode(queue), (queue.fileno(),))
        for service in services.values():
            for running in (r for r in service.processes.running.values() if r.pid):
                identity = (running.process.pid, running.process.started)
                if running.name in self._held:  # without labels, as earlier versions stored it
                    found[running.name] = (identity, tuple(running.descriptors.values()))
                    continue
                for role, fd in running.descriptors.items():
                    found[f"{running.name}/{role}"] = (identity, (fd,))
        return found

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._store.forget(name)
            del self._held[name]


def _snapshot(
    config: Config, listeners: Listeners, services: Iterable[Service], history: EventLog
) -> Snapshot:
    since, events = history.kept
    return Snapshot(
        boot_id=boot_id(),
        config=config,
        listeners=tuple(opening.written(one, _settled(one, services)) for one in listeners.all),
        services=tuple(service.written() for service in services if not service.fleet.stopped),
        events=events,
        events_since=since,
        counts=history.tally.kept,
        refused=history.tally.refused,
    )


def _settled(listener: Listener, services: Iterable[Service]) -> set[int]:
    """Return the leases of a listener that have workers, and none that boots."""
    users = [service for service in services if listener.listen.address in service.addresses]
    workers = [worker for service in users for worker in service.fleet.workers()]
    booting = {worker.lease for worker in workers if worker.state is State.STARTING}
    return {worker.lease for worker in workers} - booting


@functools.cache  # it never changes, and there may be no descriptor left to read it with
def boot_id() -> str:
    """Return what this boot of the machine is called."""
    return _BOOT_ID.read_text().strip()
