"""What keeps descriptors beyond a manager's death: systemd, a keeper, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sockmgr.api.records import EventKind
from sockmgr.errors import ControlError
from sockmgr.kernel.open_files import OpenFiles
from sockmgr.kernel.rights import close_all
from sockmgr.log import Log
from sockmgr.manager.takeover.keeper_store import KeeperStore
from sockmgr.manager.takeover.predecessor import Predecessor, recovered
from sockmgr.systemd.store import FdStore

_OWN_FILES = 10  # descriptors that a manager opens besides, before it serves

log = Log("sockmgr")


class Store(Protocol):
    def keep(self, name: str, fds: Sequence[int]) -> bool:
        """Hold duplicates of `fds`, which are borrowed, under `name`, and nothing else there.

        False if that has failed, and may be tried again.
        """

    def forget(self, name: str) -> None:
        """Hold nothing under `name` any more."""


class NoStore:
    """The store of a manager that has none: its sockets and workers end with it."""

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        del name, fds
        return True

    def forget(self, name: str) -> None:
        """Hold nothing."""


def find_keeper(path: Path, descriptors: dict[str, list[int]]) -> KeeperStore | None:
    """Return the keeper of a manager that died, and add to `descriptors` all that it held.

    If the keeper died as well, or was not given all, the descriptors are taken from the workers,
    and None is returned.
    Raises ControlError if the keeper serves another manager, SpawnError if too few descriptors are
    left to go on with those.
    """
    # Descriptors that an upgrade or a socket unit passed are better than copies from the workers.
    are_passed = bool(descriptors)
    found = KeeperStore.find(path, descriptors)
    if found is None and not are_passed:
        for name, fds in recovered(path.with_suffix(".state")).items():
            close_all(descriptors.get(name, ()))
            descriptors[name] = fds
    OpenFiles.check(_OWN_FILES)
    return found


def take_or_start(
    found: FdStore | KeeperStore | None, predecessor: Predecessor, keeper: Path | None
) -> Store:
    """Return the store to use from now on: the one found, or a new keeper at this path, if any."""
    # systemd does not say what it holds, so we count it, from what it has just passed to us on.
    if isinstance(found, FdStore):
        found.inherit({name: predecessor.descriptors[name] for name in predecessor.names})
    if found or keeper is None:
        return found or NoStore()
    predecessor.names = {}  # a new keeper holds nothing
    try:
        return KeeperStore.start(keeper)
    except ControlError as error:
        log.error(EventKind.NO_KEEPER, error=error.what, means="nothing survives if we are killed")
        return NoStore()
