"""One manager on the pretended kernel: from the state of the one before it until its own death.

Which services there are and what they mean to each other is decided by sockmgr's own Services and
Company. What these await is kept here as records instead, so that a world can be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from sockmgr.api.types import Verdict
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Address, Listen, Spec
from sockmgr.errors import ControlError, ListenError, SockmgrError
from sockmgr.fleet import order
from sockmgr.fleet.history import History, Origin, brought_back
from sockmgr.fleet.messages import Fact, WorkerExited, WorkerStopping
from sockmgr.fleet.snapshot import ServiceSnapshot, Snapshot, decode
from sockmgr.fleet.together import resolved
from sockmgr.manager.company import Company
from sockmgr.manager.service.pooling import check_shares
from sockmgr.manager.service.service import Service
from sockmgr.manager.service.upkeep import Upkeep
from sockmgr.manager.service.verdicts import ignore_progress
from sockmgr.manager.services import Services
from sockmgr.manager.takeover.handover import KEEP_AGAIN
from sockmgr.manager.takeover.store import take_or_start
from sockmgr.programs.dispatcher.loop import Timer
from tests.helpers.states import encode
from tests.simulation import keeping
from tests.simulation.dispatching import Timers
from tests.simulation.kernel import Broken, Group, Kernel, Life, Listener, Process, Queue
from tests.simulation.shell import Answer, Nothing, ServiceShell

if TYPE_CHECKING:
    from tests.simulation.world import World

BUSY = 200  # facts in one go; more is a loop without end


@dataclass(frozen=True, slots=True)
class ListenerRecord:
    """What the state has of one listener."""

    listen: Listen
    fed: tuple[tuple[int, int], ...]
    number: int
    is_refusing: bool
    is_ending: bool
    inodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What was saved. The history is encoded when it is read: that takes longer than all else."""

    config: Config
    newest: Config | None
    services: Mapping[str, ServiceSnapshot] = field(default_factory=dict)
    pasts: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    listeners: tuple[ListenerRecord, ...] = ()
    moves: Mapping[str, int] = field(default_factory=dict)

    def read(self) -> Snapshot:
        """Return what the next manager reads: through bytes."""
        services = [
            replace(each, past=History(*self.pasts[name]).record)
            for name, each in self.services.items()
        ]
        return decode(
            encode(
                Snapshot(
                    boot_id="", config=self.config, newest=self.newest, listeners=(),
                    services=tuple(services),
                )
            )
        )  # fmt: skip


class Listeners:
    """The listeners that are open: sockmgr.manager.listeners.registry."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.open_: dict[Address, Listener] = {}
        self.renewed: set[Address] = set()

    def at(self, address: Address) -> Listener:
        return self.open_[address]

    @property
    def all(self) -> tuple[Listener, ...]:
        return tuple(self.open_.values())

    def all_in(self, addresses: Collection[Address]) -> bool:
        return all(each in addresses for each in self.open_)

    def open(self, listens: Sequence[Listen]) -> None:
        opened: list[Address] = []
        try:
            for listen in listens:
                if listen.address not in self.open_:
                    if self._kernel.fails("bind"):
                        raise ListenError(f"cannot bind {listen.address}")
                    queue = Queue(listen.address, 0)
                    group = Group(listen.address, [queue], {0: 1})
                    self._kernel.groups[listen.address] = group
                    self.open_[listen.address] = OwnListener(self._kernel, listen, group)
                    opened.append(listen.address)
                listener = self.open_[listen.address]
                listener.admit()
                listener.apply(listen)
        except SockmgrError:
            for address in opened:
                self.close(address)
            raise

    def conform(self, listens: Sequence[Listen]) -> None:
        del listens

    def close_unused(self, used: Collection[Address]) -> None:
        for address in [each for each in self.open_ if each not in used]:
            self.close(address)

    def close(self, address: Address) -> None:
        del self.open_[address]
        for queue in self._kernel.groups.pop(address).queues:
            if not any(p.takes and queue in p.queues for p in self._kernel.living()):
                for each in (*queue.waiting, *queue.half):
                    each.why_lost = "its listener was removed, and nobody serves there"
            queue.close()

    def resume(self, records: Sequence[ListenerRecord]) -> None:
        for was in records:
            address = was.listen.address
            if address not in self._kernel.groups:  # closed just now, and the store has it still
                queues = [Queue(address, number) for number in range(was.number)]
                self._kernel.groups[address] = Group(address, queues, {0: 1})
            group = self._kernel.groups[address]
            while len(group.queues) > was.number:  # no state names it, so it was closed
                group.queues.pop().close()
            listener = OwnListener(self._kernel, was.listen, group)
            self.open_[was.listen.address] = listener
            if was.is_ending:
                # It cannot admit anybody again, so that it was closed, and is opened anew.
                self._let_go(group)
                group.queues = [Queue(group.address, 0)]
                group.fed, group.is_refusing, listener.is_anew = {0: 1}, False, True
                continue
            group.is_refusing = was.is_refusing
            group.fed = dict(was.fed)
        for address in self._kernel.groups.keys() - self.open_.keys():
            for queue in self._kernel.groups.pop(address).queues:
                queue.close()

    def _let_go(self, group: Group) -> None:
        """Close queues that workers may have as well."""
        for queue in group.queues:
            for each in (*queue.waiting, *queue.half):
                each.why_lost = "a stop was cut short"


class OwnListener(Listener):
    """A listener that can be written down."""

    @property
    def record(self) -> ListenerRecord:
        is_shut = self.is_refusing
        return ListenerRecord(
            self.listen, tuple(self.fed.items()), len(self.queues), is_shut and not self.is_ending,
            is_shut and self.is_ending, self.inodes,
        )  # fmt: skip


class OwnCompany(Company):
    """The real one, which tells when a group has a new number."""

    def __init__(self, services: Any, world: World) -> None:
        super().__init__(services)
        self._world = world

    def join(self, specs: Sequence[Spec], leaving: Collection[str], *, together: bool) -> Any:
        groups = super().join(specs, leaving, together=together)
        for group in groups.values():
            self._world.new_group(group.group)
        return groups

    def end(self, services: Any, stop: Any) -> None:  # type: ignore[override]
        assert self._world.manager
        self._world.manager.end(services, stop)


@dataclass(slots=True)
class Rolling:
    """A reload whose verdicts are awaited."""

    config: Config
    waiting: list[Answer]
    removed: Collection[str]
    together: bool
    addresses: list[Address]
    number: int


@dataclass(slots=True)
class Ending:
    """Services that end, each when those that are after it have ended."""

    specs: dict[str, Spec]
    left: dict[str, ServiceShell]
    begun: dict[str, ServiceShell]
    since: dict[str, float]
    stop: Callable[[ServiceShell], object]


class ManagerServices(Services):
    """The real one; a reload is a record until its verdicts are there."""

    def __init__(self, manager: Manager) -> None:
        super().__init__(manager.read, manager.listeners)  # type: ignore[arg-type]
        self._manager = manager
        self._company = OwnCompany(self.by_name, manager.world)
        self._tasks: Any = Nothing()

    def add(self, name: str) -> Any:
        made = self.by_name[name] = ServiceShell(name, self._manager)  # type: ignore[assignment]
        return made

    def _resolve(self, config: Config, service: ServiceConfig) -> Spec:
        return self._manager.world.resolve(config, service)

    async def _roll(  # type: ignore[override]
        self,
        config: Config,
        specs: Sequence[Spec],
        removed: Collection[str],
        progress: Any,
        *,
        together: bool,
        under_way: Sequence[Any] = (),
    ) -> list[Verdict]:
        for spec in specs:
            was = self.by_name.get(spec.service)
            if was and was.fleet.stopping and not self.all_stop:
                raise ControlError(f"{spec.service} was removed, and its workers drain still")
        self._listeners.open([listen for spec in specs for listen in spec.listen])
        addresses = [listen.address for spec in specs for listen in spec.listen]
        self._asked_for.update(addresses)
        try:
            for spec in specs:
                check_shares(spec, [self._listeners.at(each.address) for each in spec.listen])
            together = together and len(specs) + len(under_way) + len(removed) > 1
            groups = self._company.join(specs, removed, together=together)
            number = self._say(config, {s.service for s in specs}, removed, together=together)
            waiting: list[Any] = [*self._begin(specs, config, progress, groups), *under_way]
            if not together:
                self._remove(removed)
        except SockmgrError:
            self._let_go(addresses)
            raise
        rolling = Rolling(config, waiting, removed, together, addresses, number)
        self._manager.rollings.append(rolling)
        return []

    def go_on(self, rolling: Rolling) -> None:
        """Do what a reload does when all of its verdicts are there."""
        verdicts = [each.result() for each in rolling.waiting]
        committed = [each.service for each in verdicts if each.verdict == "committed"]
        all_did = rolling.together and len(committed) == len(verdicts)
        gone = rolling.removed if all_did else ()
        self._remove(self._company.conclude(rolling.number, gone, committed))
        self._accept(rolling.config, *set(rolling.removed) - self.by_name.keys())
        self._let_go(rolling.addresses)

    def _let_go(self, addresses: list[Address]) -> None:
        self._asked_for.subtract(addresses)
        self._listeners.conform(self.config.listen)
        self._upkeep.now()

    def stop_all(self, *, now: bool) -> None:
        self.all_stop = True
        if now:
            for each in self:
                each.stop_now()
        else:
            self._company.end(list(self), Service.stop)  # type: ignore[unused-coroutine]


class Manager:
    """A manager. It is its own event loop: what is due happens in `run`."""

    def __init__(self, world: World) -> None:
        self.world, self.kernel = world, world.kernel
        self.listeners = Listeners(self.kernel)
        self.upkeep = Upkeep(soon=self._soon, now=self.changed, spawned=self._spawned)
        self.rollings: list[Rolling] = []
        self.endings: list[Ending] = []
        self.services = ManagerServices(self)
        self.services._upkeep = self.upkeep
        self.is_stopping = False
        self.gone: list[int] = []
        self.store: Any = None
        self.timers = Timers()
        self.readers: dict[int, Callable[[], object]] = {}
        self._again: Timer | None = None
        self.needs_dispatcher = False

    # --- What its parts ask: a loop, and the context of workers ----------------------------------

    @property
    def loop(self) -> Manager:
        return self

    def time(self) -> float:
        return self.kernel.now

    def create_future(self) -> Any:
        return Answer()

    def read(self) -> Config:
        return self.world.file

    # --- Its beginning ---------------------------------------------------------------------------

    def _have_store(self, store: Any, left: dict[str, list[int]]) -> None:
        """Do what sockmgr.manager.takeover.handover does when a manager begins."""
        left = {name: fds for name, fds in left.items() if fds}
        before = SimpleNamespace(names=keeping.names(left))
        self.store = take_or_start(store, before, keeping.Path(self.world))  # type: ignore[arg-type]
        self.saved = keeping.Saved(self, self.store, before.names)
        self.store.watch(self._on_keeper_gone)

    def _on_keeper_gone(self) -> None:
        self.saved.start_anew()
        self.changed()

    def begin(self, file: Config) -> None:
        """Start from the config."""
        keeping.Loops.loop = self
        self._have_store(None, {})
        services = self.services
        services.config = file
        specs = [self.world.resolve(file, each) for each in file.services]
        self.listeners.open(file.listen)
        for spec in specs:
            services.add(spec.service)
        services.start(specs)
        self.changed()

    def resume(self, state: State) -> None:
        """Go on where another manager was, and do what the config says by now."""
        keeping.Loops.loop = self
        store, left = keeping.found(self.world)
        self._check_found(state, left)
        self._have_store(store, left)
        snapshot, services = state.read(), self.services
        found_dispatcher = self.world.dispatcher is not None
        services.config = snapshot.config
        services.newest = services.found = snapshot.newest
        self.listeners.resume(state.listeners)
        for listen in state.config.listen:
            self.listeners.at(listen.address).admit()
        known: set[int] = set()
        for was in resolved(snapshot.services):
            adopted: Any = services.add(was.name)
            adopted.processes.moves.adopt(left)
            found = {
                worker.process.pid: self.kernel.processes.get(worker.process.pid)
                for generation in was.generations
                for worker in generation.workers
                if worker.process
            }
            known |= found.keys()
            if was.hook:
                self._adopt_hook(adopted, was)
            adopted.resume(was, {p.id: p for p in found.values() if p})
        self.world.forget_hooks(self)
        strangers = [p for p in self.kernel.processes.values() if p.pid not in known]
        for process in strangers:
            self._meet_stranger(process, found_dispatcher=found_dispatcher)
        if there := self.world.dispatcher:
            there.begin_anew()
        self.tell_dispatcher()
        self.changed()

    def _check_found(self, state: State, left: dict[str, list[int]]) -> None:
        """See that all is there of which the state tells."""
        there = {fd for name, fds in left.items() if "#" in name for fd in fds}
        for each in state.listeners:
            if not there.issuperset(each.inodes):
                raise Broken(f"P8: the next manager has not all of {each.listen.address}")

    def _meet_stranger(self, process: Process, *, found_dispatcher: bool) -> None:
        """Meet a process that no state names, since it was started just before a death."""
        adopted = {end for each in self.services for end in each.processes.moves.inodes}  # type: ignore[attr-defined]
        if (moves := process.moves) and not adopted & {moves.number, moves.number + 1}:
            moves.is_shut = True  # strangers alone have it, and are told to stop, or die
        if process.life is Life.SERVING and not process.hung:
            process.be_told()
            # It takes what it has before it ends, unless it crashes.
            for item in process.channel.items if process.channel and not found_dispatcher else ():
                if not isinstance(item, int):
                    item[0].why_lost = "it was passed to a worker of which no state tells"
        elif process.life is not Life.DEAD and process.hung:
            self.world.end(process, -9, "a stranger that hangs")
        elif process.life is Life.BOOTING:
            self.world.end(process, -15, "a stranger")
        elif process.channel and not found_dispatcher:
            why = "it was passed to a worker of which no state tells, and all have died"
            self.world.lose_in([process.channel], why)

    def _adopt_hook(self, adopted: Any, was: ServiceSnapshot) -> None:
        hook = was.hook
        assert hook
        began = self.world.hook_runs(was.name, hook.generation, hook.moment)
        adopted.hooks.adopt(hook, began=began)

    def catch_up(self) -> None:
        """Do what the config says by now, if that can be."""
        is_needed = not self.services.are_up_to_date()
        why = self.ask(self.services.reload_changed()) if is_needed else ""
        self.world.is_refused = bool(why)
        if why:
            self.world.say("    it cannot do what the config says by now: {}", why)

    def ask(self, asked: Any) -> str:
        """Let what is asked happen, up to where it waits; return why it was refused."""
        try:
            asked.send(None)
        except StopIteration:
            return ""
        except SockmgrError as error:
            return error.what
        raise RuntimeError("it waits")

    # --- What happens ----------------------------------------------------------------------------

    def put(self, service: str, fact: Fact) -> None:
        if found := self.services.by_name.get(service):
            found.put(fact)

    def see_end(self, process: Process) -> None:
        """See by a pidfd that a worker has ended."""
        fact = WorkerExited(worker=process.id, status=process.status, took=process.took)
        if self._knows(process):
            self.put(process.service, fact)

    def hear_leaving(self, process: Process) -> None:
        if self._knows(process):
            self.put(process.service, WorkerStopping(worker=process.id, took=process.took))

    def _knows(self, process: Process) -> bool:
        service: Any = self.services.by_name.get(process.service)
        running = service.processes.running.get(process.id) if service else None
        return bool(running and running.process is process)

    def forget(self, process: Process) -> None:
        """Let go of one that is dead; until the state says so, its pidfd is in the store."""
        self.gone.append(process.pid)

    def hear_dispatcher(self, name: str, what: str, about: tuple[Any, ...]) -> None:
        if found := self.services.by_name.get(name):
            found.processes.dispatching.hear(what, about)

    def need_dispatcher(self) -> None:
        self.needs_dispatcher = True
        if self.world.dispatcher is None:
            self.tell_dispatcher()

    def tell_dispatcher(self) -> None:
        """Say everything to a dispatcher, whatever it knows."""
        needing = [s for s in self.services if s.processes.dispatching.is_needed]
        self.needs_dispatcher = bool(needing)
        if needing and self.world.dispatcher is None:
            self.world.start_dispatcher()
        if there := self.world.dispatcher:
            for service in needing:
                service.processes.dispatching.say_all()  # type: ignore[attr-defined]
            there.settle([s.name for s in needing])

    # --- Its loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Take fact after fact, as they come, until nothing is left to do."""
        keeping.Loops.loop = self
        for _ in range(BUSY):
            if not self.turn():
                return
        raise Broken("P11: it does not come to rest, and no time passes")

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return self.timers.add(self.time() + seconds, call)

    def add_reader(self, number: int, call: Callable[[], object]) -> None:
        self.readers[number] = call

    def remove_reader(self, number: int) -> None:
        self.readers.pop(number, None)

    def _look(self) -> bool:
        """See the end of a keeper, and call for what is due; tell whether there was anything."""
        keeper, did = self.world.keeper, False
        for number, call in list(self.readers.items()):
            if keeper is None or keeper.number != number:
                call()
                did = True
        return self.timers.call(self.time()) or did

    def turn(self) -> bool:
        """Let each service take one fact; tell whether there was anything to do."""
        did = self._look()
        services: list[Any] = list(self.services.by_name.values())
        for service in services:
            service._clients.look()
            if service._traffic._owed:
                service._traffic.look(self.kernel.now)
            if service.is_due and not service.fleet.stopped:
                service.turn()
                did = True
            if service.fleet.stopped:
                service.end()
                self.services.forget(service.name)
                self.services.heed(service.name)
                self.changed()
                did = True
        return self._go_on() or did

    def _go_on(self) -> bool:
        did = False
        while done := [r for r in self.rollings if all(each.done() for each in r.waiting)]:
            self.rollings.remove(done[0])
            self.services.go_on(done[0])
            did = True
        for ending in self.endings:
            for name, service in list(ending.left.items()):
                if self._may_end(ending, name):
                    del ending.left[name]
                    ending.begun[name] = service
                    ending.stop(service)
                    did = True
        self.endings = [each for each in self.endings if each.left]
        return did

    def _may_end(self, ending: Ending, name: str) -> bool:
        after = {each: spec.after for each, spec in ending.specs.items()}
        first = order.followers(name, after)
        waits = [n for n in first if n in ending.left or not ending.begun[n].fleet.stopped]
        since = ending.since.setdefault(name, self.kernel.now)
        patience = order.stop_patience(name, ending.specs)
        return not waits or self.kernel.now >= since + patience

    def end(self, services: Sequence[ServiceShell], stop: Callable[[Any], object]) -> None:
        """Have services end in their order: sockmgr.manager.company's end()."""
        if services:
            specs = {s.name: s.fleet.serving.spec for s in services if s.fleet.serving}
            left = {s.name: s for s in services}
            self.endings.append(Ending(specs, left, {}, {}, stop))
            self._go_on()

    def tell_to_stop(self) -> None:
        """Send the stop signals whose turn has come."""
        for service in self.services:
            service.processes.tell_all()  # type: ignore[attr-defined]

    @property
    def deadline(self) -> float:
        services = self.services.by_name.values()
        return min((self.timers.next, *(each.deadline for each in services)))

    @property
    def is_at_rest(self) -> bool:
        return all(service.is_at_rest for service in self.services)

    # --- What it saves ---------------------------------------------------------------------------

    def _soon(self) -> None:
        self.world.is_unsaved = True

    def _spawned(self, name: str) -> None:
        keeping.Loops.loop = self
        if not self.saved.store_spawned(self.services.by_name[name]):
            self.changed()

    def changed(self) -> None:
        """Close what nobody needs, and save."""
        self.services.close_unused()
        self.save()

    def save(self) -> None:
        keeping.Loops.loop = self
        if self.world.dies_in_save == 1:
            self.come_nearer()
        # What is there is asked of us: it is our services, our listeners, and nothing else.
        self.saved.update(self._present, {})  # type: ignore[arg-type]
        if self._again:
            self._again.cancel()
            self._again = None
        if self.saved.is_complete:
            self.store.is_up_to_date()
        else:
            self._again = self.call_later(KEEP_AGAIN, self.changed)

    @property
    def _present(self) -> SimpleNamespace:
        return SimpleNamespace(services=self.services, listeners=self.listeners)

    def come_nearer(self) -> None:
        """Come nearer to the step of a save at which this manager is to die, if any."""
        world = self.world
        if world.dies_in_save > 1:
            world.dies_in_save -= 1
        elif world.dies_in_save and not keeping.would_lose(world):
            raise Died

    def write(
        self, records: Mapping[str, Any], listeners: tuple[Any, ...], moves: Mapping[str, int]
    ) -> None:
        """Have the state from which the next manager goes on."""
        world, services = self.world, self.services
        newest = None if services.newest == services.config else services.newest
        snapshots = {name: each.service for name, each in records.items()}
        pasts = {name: each.past for name, each in records.items()}
        world.state = State(services.config, newest, snapshots, pasts, listeners, moves)
        world.is_unsaved = False
        world.joint_saved = {number: dict(ends) for number, ends in world.joint.items()}
        for pid in self.gone:
            self.kernel.processes.pop(pid, None)
        self.gone.clear()

    # --- What people ask -------------------------------------------------------------------------

    def reload(self, names: tuple[str, ...], *, together: bool) -> str:
        if self.is_stopping:
            return "the manager is stopping"
        return self.ask(self.services.reload(names, ignore_progress, together=together))

    def roll_back(self, name: str) -> str:
        """Do what sockmgr.manager.rollback does."""
        service: Any = self.services.by_name.get(name)
        if service is None or self.is_stopping or service.fleet.stopping or service.rolls:
            return "it cannot be brought back now"
        current = service.fleet.current
        try:
            number, kept = service.past.history.target(current, None)
            spec = brought_back(number, kept.spec, current.spec)
        except ControlError as error:
            return error.what
        service.reload(spec, ignore_progress, origin=Origin(kind="rollback", to=number))
        return ""

    def stop(self, *, now: bool) -> None:
        self.is_stopping = True
        self.services.stop_all(now=now)

    @property
    def living(self) -> list[Process]:
        return [p for p in self.kernel.processes.values() if p.life is not Life.DEAD]


class Died(Exception):
    """The manager was killed here."""
