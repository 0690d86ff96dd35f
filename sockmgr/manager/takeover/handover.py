"""How one manager follows another: what is kept for the next one, and how this one becomes it.

Owns the guard and the saved state. A manager that dies, one that leaves and one that is replaced by
new code leave the same behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.config.config import Config
from sockmgr.errors import SpawnError
from sockmgr.fleet.messages import State
from sockmgr.fleet.snapshot import Snapshot
from sockmgr.kernel.cgroup import Unit, members, own_unit
from sockmgr.kernel.process import kill_holder
from sockmgr.kernel.procfs import owner_of
from sockmgr.kernel.queues import inode
from sockmgr.log import Log
from sockmgr.manager.listeners import opening
from sockmgr.manager.listeners.listener import Listener
from sockmgr.manager.listeners.registry import Listeners
from sockmgr.manager.logs.events import EventLog
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.service.service import Service
from sockmgr.manager.takeover.guard import Guard
from sockmgr.manager.takeover.keeper_store import KEEPER, KeeperStore
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.restarts import Restarts
from sockmgr.manager.takeover.state import FOUND, LIFELINE, NOTIFY, STATE, StateMemory, boot_id
from sockmgr.manager.takeover.store import NoStore, Store
from sockmgr.manager.takeover.upgrade import Proof, become

log = Log("sockmgr")

CONTROL = "@control"
KEEP_AGAIN = 1.0  # seconds until what could not be kept is tried again


class Handover:
    """What goes on after this manager, while it runs. Call `update` whenever something changed."""

    def __init__(
        self,
        predecessor: Predecessor,
        store: Store,
        sink: Sink,
        changed: Callable[[], None],
        copy: Path | None,
        notify: Callable[[], int],
    ) -> None:
        """Take over from `predecessor`; `changed` is called when there is something new to keep.

        The state is written to the file `copy` as well, if one is given. `notify` returns the
        notify socket, borrowed.
        """
        self._sink, self._changed, self._store = sink, changed, store
        self._memory = predecessor.memory(copy)
        self._guard, self._restarts = Guard(), Restarts()
        if lifeline := predecessor.descriptors.pop(LIFELINE, []):
            self._guard.adopt(socket.socket(fileno=lifeline[0]))
        self._notify = notify
        self._saved = SavedState(store, self._memory, predecessor.names)
        self._proof = Proof(sink)
        self._due: asyncio.Handle | None = None
        self._again: asyncio.Handle | None = None

    @property
    def pids(self) -> Collection[int]:
        """The children of the manager that are no workers."""
        keeper = self._store.pid if isinstance(self._store, KeeperStore) else 0
        return {self._proof.pid, self._guard.pid, keeper}

    @property
    def _others(self) -> Mapping[str, int]:
        return {LIFELINE: self._guard.fileno(), NOTIFY: self._notify()}

    @property
    def unit(self) -> Unit | None:
        """The unit of the manager, if systemd manages it."""
        return None if isinstance(self._store, KeeperStore | NoStore) else own_unit()

    @property
    def under_way(self) -> bool:
        """Whether new code is being proven."""
        return bool(self._proof.pid)

    def watch_over(self) -> None:
        """Have a guard or a keeper look after the workers from now on, in case the manager dies.

        Under systemd it is a guard, which ends the workers if no manager can come back; elsewhere
        it is a keeper, which holds their descriptors for the next manager.
        """
        if isinstance(self._store, KeeperStore):
            self._store.watch(self._on_keeper_gone)
        elif not isinstance(self._store, NoStore):
            self._have_guard()

    def mend_keeper(self) -> bool:
        """Replace the keeper if its path is gone, as none would find it; raise ControlError."""
        return isinstance(self._store, KeeperStore) and self._store.mend()

    def mend_copy(self) -> bool:
        """Write the copy of the state again if it is gone."""
        if self._memory.is_copied:
            return False
        self._saved.write_anew()
        self._changed()
        return self._memory.is_copied

    def keep_soon(self) -> None:
        """Save the state in this turn of the loop, before anything reacts to what has happened."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._keep)

    def _keep(self) -> None:
        self._changed()
        self._due = (
            None  # only now, as records of the saving itself must not make it go on for ever
        )

    def _on_keeper_gone(self) -> None:
        self._saved.start_anew()
        self._changed()

    def _have_guard(self) -> None:
        if self._guard.fileno() < 0:
            try:
                self._guard.start(self._memory.fds)
            except SpawnError as error:
                delay = self._restarts.plan(self._have_guard_again)
                log.error(
                    EventKind.NO_GUARD, error=error.what, means=error.means, tried_again_in=delay
                )
                return
        asyncio.get_running_loop().add_reader(self._guard.fileno(), self._on_guard_gone)

    def _have_guard_again(self) -> None:
        self._have_guard()
        self._changed()

    def _on_guard_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._guard.fileno())
        self._guard.close()
        log.warning(EventKind.GUARD_ENDED, another_in=self._restarts.plan(self._have_guard_again))
        self._changed()

    def update(
        self,
        config: Config,
        listeners: Listeners,
        services: Mapping[str, Service],
        history: EventLog,
    ) -> None:
        """Keep what there is now for the next manager."""
        self._saved.update(config, listeners, services, self._others, history)
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._saved.is_complete:
            if isinstance(self._store, KeeperStore):
                self._store.is_up_to_date()
        else:
            self._again = asyncio.get_running_loop().call_later(KEEP_AGAIN, self._changed)

    async def prove(self) -> None:
        """Have new code read the state in a child; raise ControlError if the code cannot."""
        await self._proof.take(self._memory.latest)

    def become_new(
        self, control: socket.socket, listeners: Listeners, services: Mapping[str, Service]
    ) -> None:
        """Become the new code, which goes on listening at `control`. Returns by OSError only."""
        descriptors = self._saved.descriptors(listeners, services, self._others)
        if isinstance(self._store, KeeperStore) and self._store.fileno() >= 0:
            descriptors[KEEPER] = (self._store.fileno(),)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._tell_the_rest(services)
        try:
            become({CONTROL: (control.fileno(),), **descriptors})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def leave(self, services: Mapping[str, Service]) -> None:
        """Exit at once, as if killed, so that the next manager takes the workers over."""
        self._tell_the_rest(services)
        os._exit(0)

    def _tell_the_rest(self, services: Mapping[str, Service]) -> None:
        for service in services.values():
            for running in service.processes.running.values():
                running.output.leave()
        self._sink.close()

    def dismiss_guard(self) -> None:
        """Have no guard any more: it watches over workers, and all of them have ended.

        One that another manager started would be taken for an orphan of a worker.
        """
        self._restarts.cancel()
        if self._guard.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._guard.fileno())
        self._guard.dismiss()

    def end(self) -> None:
        """Leave nothing behind, since all workers have ended."""
        for handle in (self._due, self._again):
            if handle is not None:
                handle.cancel()
        self.dismiss_guard()
        self._saved.revoke()
        self._memory.remove_copy()
        if isinstance(self._store, KeeperStore):
            self._store.dismiss()


def end_strangers(sockets: Set[int], known: Collection[int]) -> None:
    """Kill each process of our unit that holds one of these sockets and is of no `known` one.

    Such a process was started in the very moment in which the last manager died: no state names
    it, so it would take connections for ever. Without a unit of our own nothing says which
    processes are ours, so none is killed.
    """
    unit = own_unit()
    ours = {*known, os.getpid()}
    for pid in members(unit) if unit else ():
        if not owner_of(pid, ours) and kill_holder(pid, sockets):
            log.warning(EventKind.STRAY_PROCESS_KILLED, pid=pid, left_by="the manager before")


# --- What there is to keep -----------------------------------------------------------------------


class SavedState:
    """What has been saved so far, in the store and in the state; call `update` on changes."""

    def __init__(self, store: Store, state: StateMemory, held: Mapping[str, object]) -> None:
        """Begin with what the store has held since a predecessor: by name what it is, or FOUND."""
        self._store, self._state = store, state
        self._held: dict[str, object] = dict(held)
        self._written: Snapshot | None = None
        self.is_complete = True  # whether the store took all that it was given

    def update(
        self,
        config: Config,
        listeners: Listeners,
        services: Mapping[str, Service],
        others: Mapping[str, int],
        history: EventLog,
    ) -> None:
        """Make the store and the state agree with what runs; all descriptors are borrowed.

        `others` are the descriptors of the manager itself by name, -1 for one that is not open.
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
        """Return all descriptors by name, borrowed, for the new code that this process becomes."""
        wanted = self._holdings(listeners, services, others)
        found = {name: fds for name, (_, fds) in wanted.items()}
        for listener in listeners.all:
            passed = [listener.queues[n] for n in sorted(listener.systemds)]
            found[listener.listen.name] = tuple(queue.fileno() for queue in passed)
        return found

    def write_anew(self) -> None:
        """Have the next update write the state even if nothing has changed."""
        self._written = None

    def start_anew(self) -> None:
        """Have the next update store everything again, since the store has lost what it held."""
        self._held.clear()

    def revoke(self) -> None:
        """Have the store hold nothing any more."""
        self._forget(set(self._held))

    def _holdings(
        self, listeners: Listeners, services: Mapping[str, Service], others: Mapping[str, int]
    ) -> dict[str, tuple[object, tuple[int, ...]]]:
        """Return the descriptors to hold by name, each with what tells it from a later one."""
        found: dict[str, tuple[object, tuple[int, ...]]] = {
            STATE: (self._state.fds, self._state.fds)
        }
        for name, fd in others.items():
            if fd >= 0:
                found[name] = (os.fstat(fd).st_ino, (fd,))
        for listener in listeners.all:
            for n, queue in enumerate(listener.queues):
                if n not in listener.systemds:
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
