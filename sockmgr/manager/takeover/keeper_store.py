"""The store of a manager that systemd did not start: a keeper process, replaced when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.errors import ControlError
from sockmgr.kernel import unix_node
from sockmgr.log import Log
from sockmgr.manager.restarts import Restarts
from sockmgr.manager.takeover.keeper import Keeper
from sockmgr.manager.takeover.state import STATE

log = Log("sockmgr")

KEEPER = "@keeper"  # the connection to it, over exec


class KeeperStore:
    def __init__(self, path: Path, keeper: Keeper) -> None:
        self._path, self._keeper = path, keeper
        self._identity = unix_node.identity(path)
        self._broken = False
        self._restarts = Restarts()

    @classmethod
    def find(cls, path: Path, descriptors: dict[str, list[int]]) -> KeeperStore | None:
        """Return the keeper of our predecessor, and add to `descriptors` all that it holds.

        None if there is none, or one that had not all yet, which ends; raises ControlError if it
        serves another manager.
        """
        if fds := descriptors.pop(KEEPER, []):
            try:
                return cls(path, Keeper.resume(fds[0], path))
            except ControlError as error:  # nothing is lost: all that it held came to us by exec
                log.warning("keeper lost", error=error.what)
                return None
        found = Keeper.take_over(path)
        if found is None:
            return None
        keeper, held = found
        descriptors.update(held)
        if STATE not in descriptors:  # which is stored last: its manager died before
            log.warning("keeper had not everything", pid=keeper.pid, names=len(held))
            keeper.dismiss()
            return None
        log.info("taken over from keeper", pid=keeper.pid, names=len(held))
        return cls(path, keeper)

    @classmethod
    def start(cls, path: Path) -> KeeperStore:
        """Start a keeper. Raises ControlError."""
        keeper = Keeper.start(path)
        log.info("keeper started", pid=keeper.pid)
        return cls(path, keeper)

    def watch(self, lost: Callable[[], None]) -> None:
        """Call `lost` when there is another keeper, which holds nothing yet."""
        self._lost = lost
        asyncio.get_running_loop().add_reader(self._keeper.fileno(), self._on_gone)

    def mend(self) -> bool:
        """Replace the keeper if its path is gone, as nobody would find it; raise ControlError."""
        # While one is being replaced its successor will make the path.
        if self._keeper.fileno() < 0 or unix_node.identity(self._path) == self._identity:
            return False
        before = self._keeper
        fresh = Keeper.start(self._path)
        asyncio.get_running_loop().remove_reader(before.fileno())
        self._start(fresh)
        # The former keeper goes last, when `lost` has had everything given to the fresh one: there
        # is no moment in which our death would lose the workers.
        before.dismiss()
        return True

    @property
    def pid(self) -> int:
        return self._keeper.pid

    def fileno(self) -> int:
        return self._keeper.fileno()

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        return self._try(lambda: self._keeper.keep(name, fds))

    def forget(self, name: str) -> None:
        self._try(lambda: self._keeper.forget(name))

    def is_up_to_date(self) -> None:
        """Note that the keeper holds all it was given, also what it could not take before."""
        if self._broken and self._keeper.fileno() >= 0:  # not while there is none
            log.info("keeper keeps again", pid=self._keeper.pid)
            self._broken = False

    def dismiss(self) -> None:
        """Have the keeper end, since no manager comes after this one."""
        self._restarts.cancel()
        if self._keeper.fileno() >= 0:  # not where the last one was lost and there is no other
            asyncio.get_running_loop().remove_reader(self._keeper.fileno())
        self._keeper.dismiss()

    def _try(self, ask: Callable[[], None]) -> bool:
        try:
            ask()
        except (ControlError, OSError) as error:
            if not self._broken:
                log.error("keeper does not keep", error=error)
            self._broken = True
            return False
        return True

    def _on_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._keeper.fileno())
        # A keeper that hangs rather than died would go on holding our sockets, and the path.
        self._keeper.kill()
        self._broken = True  # until there is another, and everybody knows
        log.warning(EventKind.KEEPER_ENDED, another_in=self._restarts.plan(self._replace))

    def _replace(self) -> None:
        try:
            fresh = Keeper.start(self._path)
        except ControlError as error:  # e.g. no process or path can be had; the next try may do
            delay = self._restarts.plan(self._replace)
            log.error(EventKind.NO_KEEPER, error=error.what,
                      means="nothing survives if we are killed", tried_again_in=delay)  # fmt: skip
            return
        self._start(fresh)

    def _start(self, fresh: Keeper) -> None:
        self._keeper, self._identity, self._broken = fresh, unix_node.identity(self._path), False
        log.info("keeper started", pid=fresh.pid)
        self.watch(self._lost)
        self._lost()
