"""The keeper on the pretended kernel, and what one manager saves for the next.

What decides is sockmgr's own: SavedState (what is held under which name, and when it is forgotten),
KeeperStore and Restarts (when a keeper is replaced). A descriptor is the number of what it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sockmgr.errors import ControlError
from sockmgr.fleet.messages import WorkerId
from sockmgr.manager import restarts
from sockmgr.manager.takeover import keeper_store, saved_state, store
from sockmgr.manager.takeover.keeper_store import KeeperStore
from sockmgr.manager.takeover.saved_state import SavedState
from sockmgr.manager.takeover.state import STATE
from sockmgr.manager.takeover.store import find_keeper
from tests.helpers.states import record
from tests.simulation.kernel import Holdings
from tests.simulation.shell import written

if TYPE_CHECKING:
    from tests.simulation.manager import Manager
    from tests.simulation.world import World


FOUND = "stored by a manager before"  # not an object whose copy is another


@dataclass
class Path:
    """Where the keeper of a world is found, and the copy of its state."""

    world: World

    def with_suffix(self, suffix: str) -> Path:
        del suffix
        return self


class KeeperProcess:
    """The process: what it holds, by name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.held = Holdings()


class Keeper:
    """A manager's connection to it: sockmgr.manager.takeover.keeper."""

    def __init__(self, world: World, process: KeeperProcess) -> None:
        self.pid, self._world, self._process = process.number, world, process
        self._is_closed = False

    @classmethod
    def start(cls, path: Path) -> Keeper:
        world = path.world
        if world.keeper:
            raise ControlError("a process listens there already")
        if world.manager and world.manager.store and world.kernel.fails("keeper"):
            raise ControlError("cannot start a keeper")
        world.keepers += 1
        world.keeper = KeeperProcess(world.keepers)
        return cls(world, world.keeper)

    @classmethod
    def take_over(cls, path: Path) -> tuple[Keeper, list[tuple[str, list[int]]]] | None:
        world = path.world
        if world.keeper is None:
            return None
        return cls(world, world.keeper), [(n, list(fds)) for n, fds in world.keeper.held.items()]

    def fileno(self) -> int:
        return -1 if self._is_closed else self.pid

    def keep(self, name: str, fds: Sequence[int]) -> None:
        self._ask()
        if self._world.kernel.fails("keep"):
            raise ControlError("the keeper refused it: too many open files")
        self._process.held = Holdings({**self._process.held, name: tuple(fds)})

    def forget(self, name: str) -> None:
        self._ask()
        held = self._process.held
        self._process.held = Holdings({n: fds for n, fds in held.items() if n != name})

    def _ask(self) -> None:
        if self._world.keeper is not self._process:
            raise ControlError("the keeper is gone")

    def kill(self) -> None:
        if self._world.keeper is self._process:
            self._world.keeper = None
        self._is_closed = True

    dismiss = kill


class Saved(SavedState):
    """The real one, whose state is written as it is: to encode it takes longer than all else."""

    def __init__(self, manager: Manager, kept_by: Any, names: Mapping[str, object]) -> None:
        super().__init__(kept_by, Memory(), names)  # type: ignore[arg-type]
        self._manager = manager

    @property
    def is_whole(self) -> bool:
        """Whether the keeper has been given all since it began."""
        return self.is_complete and not self._is_anew

    def _write_down(self, service: Any, saved: Any, changed: Iterable[WorkerId]) -> None:
        del changed
        history = service.past.history
        made = record(service.name, service.fleet, saved.processes, service.hooks.written)
        past = tuple(history._entries.values()), tuple(history._kept)
        saved.pieces = None  # of JSON, of which nothing is made
        saved.record = Written(service=made, past=past)

    def _of_worker(self, running: Any) -> Any:
        return Holdings(super()._of_worker(running))

    def _of_listener(self, listener: Any) -> Any:
        return Holdings(super()._of_listener(listener))

    def _write(self, present: Any) -> bool:
        del present
        there = (s.name for s in self._manager.services.by_name.values() if not s.fleet.stopped)
        records = {name: self._services[name].record for name in there if name in self._services}
        moves: dict[str, int] = {}
        for name in records:
            moves |= saved_state._inodes(self._services[name])
        listeners: Any = tuple(saved.record for saved in self._listeners.values())
        self._manager.write(records, listeners, moves)
        return True


class Written(msgspec.Struct, frozen=True):
    """What the state has of one service."""

    service: Any
    past: Any


class Memory:
    """The memfds of the state, which are not pretended."""

    fds = (1, 2)


def found(world: World) -> tuple[KeeperStore | None, dict[str, list[int]]]:
    """Return the store of the manager before, and all that is left of it, by name."""
    descriptors: dict[str, list[int]] = {}
    return find_keeper(Path(world), descriptors), descriptors  # type: ignore[arg-type]


def names(descriptors: Mapping[str, Sequence[int]]) -> dict[str, object]:
    return {n: fds[0] if "#" in n else FOUND for n, fds in descriptors.items()}


def held_by_others(world: World) -> set[int]:
    """Return the queues that workers and the dispatcher have, by their inodes."""
    queues = [queue for process in world.kernel.living() for queue in process.queues]
    if world.dispatcher:
        queues += [q for served in world.dispatcher.services.values() for q in served.taps]
    return {queue.inode for queue in queues}


def would_lose(world: World) -> bool:
    """Tell whether the next manager would not find all of the queues of which the state tells.

    Others are asked only where the keeper is gone, or has no state yet: one that could not take
    all, and said so, is not made up for.
    """
    keeper = world.keeper.held if world.keeper else {}
    held = {fd for fds in keeper.values() for fd in fds}
    if STATE not in keeper:
        held |= held_by_others(world)
    return any(not held.issuperset(each.inodes) for each in world.state.listeners)


def _recovered(path: Path) -> dict[str, list[int]]:
    """Return what the processes have that are left: sockmgr.manager.takeover.predecessor."""
    world = path.world
    held = held_by_others(world)
    left = {
        f"{each.listen.name}#{n}": [inode]
        for each in world.state.listeners
        for n, inode in enumerate(each.inodes)
        if inode in held
    }
    queues = [p.moves.number for p in world.kernel.living() if p.moves]
    if world.dispatcher:
        queues += world.dispatcher.move_queues
    moves = world.state.moves.items()
    return left | {name: [end] for name, end in moves if end & ~1 in queues}


class Loops:
    """The module asyncio, as far as it is asked for the loop: that of the manager."""

    loop: Manager

    @classmethod
    def get_running_loop(cls) -> Manager:
        return cls.loop


class Nodes:
    """The path of the keeper, which is there while it lives."""

    @staticmethod
    def identity(path: Path) -> int | None:
        return path.world.keeper.number if path.world.keeper else None


def reached(point: object) -> None:
    """Come to a step of a save, of which one may be the manager's last."""
    del point
    Loops.loop.come_nearer()


class Files:
    """The limit of open files, which is never met."""

    @staticmethod
    def check(reserve: int) -> None: ...


def _same(it: Any) -> Any:
    return it


class Opening:
    """sockmgr.manager.listeners.opening, which writes down what a listener is."""

    @staticmethod
    def written(listener: Any, settled: object) -> Any:
        del settled
        return listener.record


def install(put: Callable[[Any, str, Any], object] = setattr) -> None:
    """Have the code that keeps and saves use what is pretended, for as long as `put` has it."""
    for module in (keeper_store, restarts):
        put(module, "asyncio", Loops)
    put(keeper_store, "Keeper", Keeper)
    put(store, "recovered", _recovered)
    put(store, "close_all", _same)
    put(store, "OpenFiles", Files)
    put(keeper_store, "unix_node", Nodes)
    put(saved_state, "reached", reached)
    put(saved_state, "FOUND", FOUND)
    put(saved_state, "as_json", _same)
    put(saved_state, "opening", Opening)
    put(saved_state, "written", written)
    put(saved_state, "_number_of", _same)
