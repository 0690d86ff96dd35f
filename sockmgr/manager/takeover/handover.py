"""How one manager follows another: what is kept for the next one, and how this one becomes it.

Owns the guard and the saved state. A manager that dies, one that leaves and one that is replaced by
new code leave the same behind.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.errors import SpawnError
from sockmgr.kernel.cgroup import Unit, own_unit
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.logs.sink import Sink
from sockmgr.manager.restarts import Restarts
from sockmgr.manager.service.upkeep import Upkeep
from sockmgr.manager.takeover.guard import Guard
from sockmgr.manager.takeover.keeper_store import KEEPER, KeeperStore
from sockmgr.manager.takeover.predecessor import Predecessor
from sockmgr.manager.takeover.saved_state import Present, SavedState
from sockmgr.manager.takeover.state import LIFELINE, NOTIFY
from sockmgr.manager.takeover.store import NoStore, Store
from sockmgr.manager.takeover.upgrade import Proof, become

log = Log("sockmgr")

CONTROL = "@control"
KEEP_AGAIN = 1.0  # seconds until what could not be kept is tried again
REST = 9  # times as long as a save that nobody waits for took, there is none


class Handover:
    """Keeps what the next manager needs, while this one runs. Call `update` on each change."""

    def __init__(
        self,
        predecessor: Predecessor,
        store: Store,
        sink: Sink,
        changed: Callable[[], None],
        present: Present,
        copy: Path | None,
        notify: Callable[[], int],
    ) -> None:
        """Take over from `predecessor`; `changed` is called when there is something new to keep.

        `present` is what there is to keep, whenever it is looked at.
        The state is written to the file `copy` as well, if one is given. `notify` returns the
        notify socket, borrowed.
        """
        self._sink, self._changed, self._present, self._store = sink, changed, present, store
        self._memory = predecessor.memory(copy)
        self._guard, self._restarts = Guard(), Restarts()
        # A predecessor's guard waits for the end of this socket: closing it would end the workers.
        if lifeline := predecessor.descriptors.pop(LIFELINE, []):
            self._guard.adopt(socket.socket(fileno=lifeline[0]))
        self._notify = notify
        self._saved = SavedState(store, self._memory, predecessor.names)
        self._proof = Proof(sink)
        self._due: asyncio.Handle | None = None
        self._is_saving, self._rested_at, self._is_over = False, -math.inf, False
        self._again: asyncio.Handle | None = None

    @property
    def pids(self) -> Collection[int]:
        """The children of the manager that are no workers."""
        keeper = self._store.pid if isinstance(self._store, KeeperStore) else 0
        return {self._proof.pid, self._guard.pid, keeper, *self._present.dispatcher.pids}

    @property
    def _others(self) -> Mapping[str, int]:
        own = {LIFELINE: self._guard.fileno(), NOTIFY: self._notify()}
        return {**own, **self._present.dispatcher.descriptors}

    @property
    def upkeep(self) -> Upkeep:
        """What services are to call when they have changed."""
        return Upkeep(soon=self.keep_soon, now=self._changed, spawned=self._store_spawned)

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
        """Have the state saved soon: at once, unless saving took a tenth of our time until now.

        A save costs more the more workers there are. If each of a thousand that end were saved by
        itself, that would be most of what the manager does, and nobody depends on it: a worker that
        accepts, was told to stop or is gone is found so by the next manager as well.
        """
        if self._due is None and not self._is_saving:  # not for a record about the saving itself
            loop = asyncio.get_running_loop()
            self._due = loop.call_at(max(loop.time(), self._rested_at), self._changed)

    def keep_now(self) -> None:
        """Save what was to be saved soon, since a client is about to see it."""
        if self._due is not None:
            self._changed()

    def _on_keeper_gone(self) -> None:
        self._saved.start_anew()
        self._changed()

    def _have_guard(self) -> None:
        if self._guard.fileno() < 0:  # a predecessor's guard serves us as well as our own would
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

    def update(self) -> None:
        if self._is_over:
            return
        if self._due is not None:
            self._due.cancel()
            self._due = None
        began, self._is_saving = time.thread_time(), True
        try:
            self._saved.update(self._present, self._others)
            reached(Point.ALL_SAVED)
        finally:
            self._is_saving = False
        rest = REST * (time.thread_time() - began)
        self._rested_at = asyncio.get_running_loop().time() + rest
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._saved.is_complete:
            if isinstance(self._store, KeeperStore):
                self._store.is_up_to_date()
        else:
            self._again = asyncio.get_running_loop().call_later(KEEP_AGAIN, self._changed)

    def _store_spawned(self, service: str) -> None:
        if not self._saved.store_spawned(self._present.services.by_name[service]):
            self._changed()

    async def prove(self) -> None:
        """Have new code read the state in a child; raise ControlError if the code cannot."""
        await self._proof.take(self._memory.latest)
        reached(Point.PROVEN)

    def become_new(self, control: socket.socket) -> None:
        """Become the new code, which goes on listening at `control`. Returns by OSError only."""
        descriptors = self._saved.descriptors(self._present, self._others)
        if isinstance(self._store, KeeperStore) and self._store.fileno() >= 0:
            descriptors[KEEPER] = (self._store.fileno(),)
        # execve(2) resets our handlers but keeps the mask: a signal that was not blocked would kill
        # the new code before it has handlers of its own.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._pass_on_output()
        try:
            become({CONTROL: (control.fileno(),), **descriptors})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def leave(self) -> None:
        """Exit at once, as if killed, so that the next manager takes the workers over."""
        self._pass_on_output()
        reached(Point.LEAVING)
        # An orderly exit would remove the paths and close what the next manager is to take over.
        os._exit(0)

    def _pass_on_output(self) -> None:
        for service in self._present.services.by_name.values():
            service.hooks.pass_on_output()
            for running in service.processes.running.values():
                running.output.leave()
        self._sink.close()

    def dismiss_guard(self) -> None:
        """Have no guard any more, as all the workers that it watched over have ended.

        A guard that another manager started would be taken for an orphan of a worker.
        """
        self._restarts.cancel()
        if self._guard.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._guard.fileno())
        self._guard.dismiss()

    def rest(self) -> None:
        """Keep nothing more: what follows is the end of this process, not of what it manages."""
        self._is_over = True
        for handle in (self._due, self._again):
            if handle is not None:
                handle.cancel()

    def end(self) -> None:
        """Leave nothing behind, since all workers have ended."""
        self.rest()
        self.dismiss_guard()
        self._saved.revoke()
        self._memory.remove_copy()
        if isinstance(self._store, KeeperStore):
            self._store.dismiss()
