"""The dispatcher on the pretended kernel: sockmgr's own, whose sockets and channels are pretended.

`Dispatching` is a manager's side of one service, `Served` the dispatcher's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sockmgr.config.spec import Accept, Policy, Spec
from sockmgr.fleet.messages import Recycle, WorkerReady
from sockmgr.log import Log
from sockmgr.manager.company import wanted
from sockmgr.manager.service import dispatching as real
from sockmgr.manager.service.lease_map import LeaseModes, specs
from sockmgr.programs.dispatcher import dispatcher, link, sources
from sockmgr.programs.dispatcher.dispatcher import Dispatcher
from sockmgr.programs.dispatcher.events import Events
from sockmgr.programs.dispatcher.loop import Timer
from sockmgr.programs.dispatcher.scheduler import Scheduler
from tests.simulation import moving
from tests.simulation.kernel import (
    Broken,
    Channel,
    Connection,
    End,
    Life,
    Listener,
    Place,
    Queue,
)

if TYPE_CHECKING:
    from tests.simulation.manager import Manager
    from tests.simulation.shell import Running
    from tests.simulation.world import World


class Sockets:
    """What the dispatcher calls of the module os: its queues never block."""

    @staticmethod
    def set_blocking(fd: int, blocking: bool) -> None: ...


class Tap:
    """A service's own duplicate of a queue: an event loop watches each by itself."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def fileno(self) -> int:
        return self.queue.fileno()

    @property
    def is_ready(self) -> bool:
        return bool(self.queue.waiting)


def accept(tap: Tap, limit: int) -> tuple[list[int], OSError | None]:
    queue = tap.queue
    found: list[Any] = []
    while queue.waiting and len(found) < limit:
        each = queue.waiting.pop(0)
        each.place, each.queue = Place.DISPATCHER, None
        found.append(each)
    return found, None


def close_all(fds: Collection[Connection]) -> None:
    """Let go of connections that were passed on: a worker's channel has them."""


def _say_nothing(self: Log, level: int, kind: str, fields: Mapping[str, object]) -> None: ...


def install() -> None:
    """Have the dispatcher's code accept from pretended queues, in this process, for good."""
    Log._write = _say_nothing  # type: ignore[method-assign]
    sources.accept, sources.os = accept, Sockets  # type: ignore[assignment]
    for module in (dispatcher, link):
        module.close_all = close_all  # type: ignore[assignment]
    from tests.simulation import keeping  # noqa: PLC0415 - which needs what is below

    moving.install()
    keeping.install()


class Timers:
    """What an event loop has still to call, and when."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []

    def add(self, at: float, call: Callable[[], object]) -> Timer:
        timer = Timer(at, call)
        self._timers.append(timer)
        return timer

    @property
    def next(self) -> float:
        return min((each.at for each in self._timers if each.call), default=math.inf)

    def call(self, now: float) -> bool:
        """Call for all that is due; tell whether anything was."""
        if not self._timers:
            return False
        did, due = False, [each for each in self._timers if each.at <= now]
        self._timers = [each for each in self._timers if each.at > now and each.call]
        for timer in due:
            if timer.call:
                timer.call()
                did = True
        return did


class Loop:
    """The event loop of a dispatcher, whose turns a test takes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._readers: dict[Any, Callable[[], object]] = {}
        self._timers = Timers()
        self._soon: deque[Callable[[], object]] = deque()

    def add_reader(self, watched: Any, call: Callable[[], object]) -> None:
        self._readers[watched] = call

    def remove_reader(self, watched: Any) -> None:
        self._readers.pop(watched, None)

    add_writer = add_reader  # there is always room
    remove_writer = remove_reader

    def call_soon(self, call: Callable[[], object]) -> None:
        self._soon.append(call)

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return self._timers.add(self.time() + seconds, call)

    def time(self) -> float:
        return self._world.kernel.now

    @property
    def next(self) -> float:
        return self._timers.next

    def turn(self) -> bool:
        """Call for all that is ready or due; tell whether anything was."""
        now, did = self.time(), False
        for watched in list(self._readers):
            if watched.is_ready and (call := self._readers.get(watched)):
                call()
                did = True
        did = self._timers.call(now) or did
        for _ in range(len(self._soon)):
            self._soon.popleft()()
            did = True
        return did


class RealDispatcher(Dispatcher):
    """The real one; a view of a dictionary cannot be copied with it."""

    served: Served

    @property
    def leases(self) -> Collection[int]:  # type: ignore[override]
        return self._links.keys()

    @leases.setter
    def leases(self, _: Collection[int]) -> None: ...

    def _lose(self, key: str, fds: Sequence[Any], why: str) -> None:
        self.served.see_lost(key)
        for each in fds:
            each.lose(why)


class Served:
    """One service in the dispatcher's process: sockmgr.programs.dispatcher.served."""

    def __init__(self, name: str, process: DispatcherProcess) -> None:
        self.name, self._process = name, process
        self.asked: dict[int, int] = {}
        self.unnamed: set[int] = set()
        self.taps: dict[Queue, Tap] = {}
        scheduler = Scheduler("")
        events = Events(
            takes=partial(self._tell, "takes"),
            misbehaves=partial(self._tell, "misbehaves"),
            quiet=self._quiet,
            emptied=partial(self._tell, "emptied"),
            say=self._say,
        )
        self.dispatcher = RealDispatcher(process.loop, scheduler, events)  # type: ignore[arg-type]
        self.dispatcher.served = self
        self.scheduler = scheduler

    def see_lost(self, key: str) -> None:
        """See that connections are closed: only if their listener was removed."""
        world = self._process.world
        found = next((each for each in world.services if each.name == self.name), None)
        if found and not found.fleet.stopping:
            passing = [s for s in specs(found.fleet) if s.accept is Accept.DISPATCH]
            ours = {each for spec in passing for each in spec.addresses}
            ours &= wanted(found.fleet) - world.manager.services.owners.elsewhere(self.name)  # type: ignore[union-attr]
            if key in map(str, ours):
                raise Broken(f"connections are closed that came to {key}, which {self.name} has")

    def listen(self, sources: Mapping[Any, str]) -> None:
        self.taps = {queue: self.taps.get(queue) or Tap(queue) for queue in sources}
        taps = {self.taps[queue]: key for queue, key in sources.items()}
        self.dispatcher.listen(taps)  # type: ignore[arg-type]

    def _say(self, level: str, kind: str, /, **fields: object) -> None: ...

    def _quiet(self, lease: int) -> None:
        if number := self.asked.pop(lease, 0):
            self._tell("quiet", lease, number)

    def _tell(self, what: str, *about: Any) -> None:
        self._process.tell(self.name, what, about)


class DispatcherProcess:
    """The process. What it tells is lost if there is no manager."""

    def __init__(self, world: World) -> None:
        self.world, self.loop = world, Loop(world)
        self.services: dict[str, Served] = {}

    def served(self, name: str) -> Served:
        if name not in self.services:
            self.services[name] = Served(name, self)
        return self.services[name]

    def tell(self, name: str, what: str, about: tuple[Any, ...]) -> None:
        if self.world.manager:
            self.world.manager.hear_dispatcher(name, what, about)

    def see_end(self, channel: Channel) -> None:
        """See by its pidfd that a worker has ended."""
        for served in self.services.values():
            for lease, known in list(served.dispatcher._links.items()):
                if known.channel is channel:
                    served.dispatcher.abandon(lease)

    def forget(self, name: str) -> None:
        if served := self.services.pop(name, None):
            served.dispatcher.close()

    def begin_anew(self) -> None:
        for served in self.services.values():
            served.unnamed = set(served.dispatcher.leases)
            served.dispatcher.untaken.await_none()
            served.asked.clear()

    def settle(self, names: Collection[str]) -> None:
        for name in self.services.keys() - set(names):
            links = self.services[name].dispatcher._by_id.values()
            why = "its worker is gone, and the next manager has none who is passed connections"
            self.world.lose_in([x.channel for x in links if x.gone], why)
            # Nor does it know of a worker that was started in the moment of the death, which takes
            # what it has before it ends, unless it crashes.
            for each in (item for x in links for item in x.channel.items):
                if not isinstance(each, int):
                    each[0].why_lost = "it was passed to a worker of which no state tells"
            self.forget(name)
        for served in self.services.values():
            for lease in served.unnamed:
                served.dispatcher.detach(lease)
            served.unnamed.clear()

    @property
    def move_queues(self) -> list[int]:
        """The numbers of those that it takes from, or will when there is room."""
        served = self.services.values()
        ends: Any = [end for s in served for end in s.dispatcher.queues._queues.values()]
        return [end.queue.number for end in ends]

    def held(self) -> list[Connection]:
        """The connections that end with it."""
        return [c for s in self.services.values() for each in s.dispatcher._held.values()
                for c in each]  # type: ignore[misc]  # fmt: skip

    def has(self, channel: Channel) -> bool:
        return any(channel.id in s.dispatcher._by_id for s in self.services.values())


class Quieted:
    """The future of a quiet that was asked for."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls: list[Callable[[Any], object]] = []

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        self.calls.append(call)


class Dispatching:
    """What a manager knows of one service: sockmgr.manager.service.dispatching."""

    flaw = ""

    def __init__(self, name: str, manager: Manager) -> None:
        self._name, self._manager = name, manager
        self.workers: dict[int, Running] = {}
        self.left: dict[int, tuple[Channel, list[str]]] = {}
        self.leaving: set[int] = set()
        self._queues: dict[str, int] = {}
        self._asked = 0
        self._weights: Mapping[int, int] = {}
        self._keys: Mapping[int, list[str]] = {}
        self._meant: list[str] | None = None
        self._sources: Mapping[Any, str] = {}
        self._policy: tuple[Any, int | None] = (Policy.ROUND_ROBIN, None)
        self._quiet: dict[int, Quieted] = {}
        self._ends: dict[int, End] = {}  # to take from what workers gave
        self.is_needed = False

    @property
    def _served(self) -> Served | None:
        there = self._manager.world.dispatcher if self.is_needed else None
        return there.served(self._name) if there else None

    def attach(self, running: Running, moves: Any) -> None:
        if running.process.channel is None:
            return
        running.process.channel.is_told = moves is not None
        if not self.workers:
            self._policy = running.spec.policy, running.spec.max_connections
            self._say_policy()
        self._begin()
        if before := self.workers.get(running.lease):
            self.detach(before)
        if moves and moves.take.number not in self._ends:
            self._ends[moves.take.number] = moves.take
            self._say_moves(moves.take)
        self.workers[running.lease] = running
        self.leaving.discard(running.lease)
        self._say_attached(running)

    def keep_queues(self, inodes: Collection[int]) -> None:
        for number in self._ends.keys() - set(inodes):
            del self._ends[number]

    def _begin(self) -> None:
        if not self.is_needed:
            self.is_needed = True
            self._manager.need_dispatcher()
            self.say_all()

    def detach(self, running: Running) -> None:
        if self.workers.get(running.lease) is running:
            del self.workers[running.lease]
            channel = running.process.channel
            assert channel
            self.left[channel.id] = channel, _keys(running.spec)
            if served := self._served:
                served.dispatcher.detach(running.lease)

    def abandon(self, running: Running) -> None:
        if self.workers.get(running.lease) is running:
            self.leaving.add(running.lease)
            if served := self._served:
                served.dispatcher.abandon(running.lease)

    def configure(self, spec: Spec, *, in_turn: bool) -> None:
        policy = Policy.ROUND_ROBIN if in_turn else spec.policy
        if self.is_needed and self._policy != (policy, spec.max_connections):
            self._policy = policy, spec.max_connections
            self._say_policy()

    def queue(self, listener: Listener, leases: Collection[int]) -> int:
        if self._queues.get(key := str(listener.listen.address)) not in leases:
            self._queues[key] = next(iter(leases))
        return self._queues[key]

    def feed(
        self,
        weights: Mapping[int, int],
        listeners: Mapping[int, Collection[Listener]],
        modes: LeaseModes,
    ) -> None:
        self._weights = dict(weights)
        self._keys = {n: [str(each.listen.address) for each in listeners[n]] for n in weights}
        self._meant = sorted(map(str, modes.meant))
        self._sources = real._sources(listeners, modes)  # type: ignore[arg-type]
        if self.is_needed:
            self._go_on()
        elif modes.meant:
            self._begin()

    def let_go(self) -> None: ...

    def quiet(self, lease: int) -> Quieted | None:
        if not self.is_needed:
            return None
        if lease not in self._quiet:
            self._asked += 1
            self._quiet[lease] = Quieted(self._asked)
            self._say_quiet(lease)
        return self._quiet[lease]

    def connections(self, lease: int) -> None:
        del lease

    def close(self) -> None:
        world, served = self._manager.world, self._served
        # Of those who were gone before the present manager began, only the dispatcher has channels.
        known = [x.channel for x in served.dispatcher._by_id.values()] if served else []
        if self.is_needed and world.dispatcher:
            world.dispatcher.forget(self._name)
        self.is_needed = False
        self._ends.clear()
        known += [r.process.channel for r in self.workers.values() if r.process.channel]
        known += [channel for channel, _ in self.left.values()]
        world.lose_in(known, "its service has stopped")

    # --- What the dispatcher is told -------------------------------------------------------------

    def say_all(self) -> None:
        if not self.is_needed:
            return
        self._say_policy()
        for running in self.workers.values():
            self._say_attached(running)
        for channel, keys in self.left.values():
            if served := self._served:
                served.dispatcher.inherit(channel, keys)  # type: ignore[arg-type]
        for end in self._ends.values():
            self._say_moves(end)
        self._go_on()
        for lease in self._quiet:
            self._say_quiet(lease)

    def _say_policy(self) -> None:
        if served := self._served:
            served.dispatcher.configure(*self._policy)

    def _say_attached(self, running: Running) -> None:
        served, channel, lease = self._served, running.process.channel, running.lease
        if served is None or channel is None:
            return
        served.unnamed.discard(lease)
        served.dispatcher.attach(lease, running.name, channel, _keys(running.spec))  # type: ignore[arg-type]
        channel.is_new = False
        if lease in self.leaving or running.process.life is Life.DEAD:
            served.dispatcher.abandon(lease)

    def _say_moves(self, end: End) -> None:
        if served := self._served:
            served.dispatcher.queues.add(end)  # type: ignore[arg-type]

    def _go_on(self) -> None:
        if served := self._served:
            served.dispatcher.meant = self._meant
            served.dispatcher.feed(self._weights, self._keys)
            served.listen(self._sources)

    def _say_quiet(self, lease: int) -> None:
        if served := self._served:
            served.asked[lease] = self._quiet[lease].number
            served.dispatcher.quiet(lease)

    # --- What it says ----------------------------------------------------------------------------

    def hear(self, what: str, about: tuple[Any, ...]) -> None:
        match what, about:
            case "takes", (lease, channel):
                running = self.workers.get(lease)
                if running and running.process.channel and running.process.channel.id == channel:
                    self._manager.put(self._name, WorkerReady(worker=running.id))
            case "misbehaves", (lease, why):
                if running := self.workers.get(lease):
                    self._manager.put(self._name, Recycle(worker=running.id, why=why))
            case "quiet", (lease, number):
                asked = self._quiet.get(lease)
                if asked and asked.number == number:
                    del self._quiet[lease]
                    for call in asked.calls:
                        call(None)
            case "emptied", (channel,):
                self.left.pop(channel, None)
            case _:
                raise ValueError(what)

    def has(self, channel: Channel) -> bool:
        """Tell whether the manager has this channel as well, so that it outlives others."""
        mine = any(each.process.channel is channel for each in self.workers.values())
        return mine or channel.id in self.left


def _keys(spec: Spec) -> list[str]:
    return [str(listen.address) for listen in spec.listen]
