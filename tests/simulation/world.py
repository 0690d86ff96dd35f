"""A world: a kernel, a manager or none, the dispatcher, clients, and what they were promised.

`step` lets one thing happen; `promises` looks at what it has come to. Nothing is drawn here: a
world that takes the same steps comes to the same.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Address, Spec
from sockmgr.fleet.messages import Fact, Outcome, Quiet, State, Together
from sockmgr.manager.takeover.state import STATE
from tests.fleet.story import tell_action, tell_fact
from tests.simulation import configs
from tests.simulation.dispatching import DispatcherProcess
from tests.simulation.keeping import KeeperProcess
from tests.simulation.kernel import Broken, Channel, Connection, Kernel, Life, Place, Process
from tests.simulation.manager import Died, Manager
from tests.simulation.manager import State as Saved

NOBODY = "manager and keeper were killed, and nobody else had it"
WITH_IT = "manager and dispatcher were killed, after its worker"

Told = tuple[Any, ...] | None  # a sentence with what is to be filled in; None: it cannot happen


class World:
    """All that there is. `story` is None while nobody wants to read it."""

    def __init__(self, family: int) -> None:
        self.kernel = Kernel()
        self.configs = configs.family(family)
        self.file = self.configs[0]
        self.is_missing = False  # the command of the file cannot be found
        self.is_aborted = False  # a rollout was, since the last manager began
        self.is_refused = False  # the last manager could not do what the file says
        self.story: list[str] | None = None
        self.dispatcher: DispatcherProcess | None = None
        self.hooks: set[tuple[str, int, str]] = set()
        self.state = Saved(self.file, None)
        self.keeper: KeeperProcess | None = None
        self.keepers = 0  # that there have been
        self.dies_in_save = 0  # at its beginning if 1, else so many steps later
        self.is_unsaved = False
        self.joint: dict[int, dict[str, str]] = {}
        self.joint_saved: dict[int, dict[str, str]] = {}
        self.counts: Counter[str] = Counter()
        self.facts = self.deaths = 0
        self.is_over = False
        self.unquiet: dict[int, float] = {}
        self._committed: Spec | None = None
        self._fact: Fact | None = None
        self.manager: Manager | None = Manager(self)

    def begin_manager(self) -> None:
        assert self.manager
        self.manager.begin(self.file)

    def resolve(self, config: Config, service: ServiceConfig) -> Spec:
        return configs.resolve(config, service, is_missing=self.is_missing)

    # --- One step ----------------------------------------------------------------------------

    def run(self) -> None:
        """Let manager and dispatcher do all that there is to do."""
        try:
            self._run()
        except Died:
            self.die("in the middle of a save")

    def _run(self) -> None:
        for _ in range(50):
            did = False
            if self.manager:
                self.manager.run()
                if self.manager.is_stopping and not self.manager.services.by_name:
                    self.manager.listeners.close_unused(frozenset())
                    self.manager, self.is_over, self.dispatcher = None, True, None
            while self.dispatcher and self.dispatcher.loop.turn():
                did = True
            if not did:
                return
        raise Broken("P11: manager and dispatcher do not come to rest")

    def save(self) -> None:
        """Have the manager save what could wait."""
        try:
            assert self.manager
            self.manager.changed()
        except Died:
            self.die("in the middle of a save")

    def pass_time(self, until: float) -> None:
        """Let time pass; what was to be done a moment later is done."""
        self.kernel.now = until
        if self.manager:
            self.manager.tell_to_stop()
            if self.manager.needs_dispatcher and self.dispatcher is None:
                self.manager.tell_dispatcher()

    def next_due(self) -> float:
        """The next instant at which something happens by itself."""
        due = [self.dispatcher.loop.next] if self.dispatcher else []
        if self.manager:
            due.append(self.manager.deadline)
            for service in self.services:
                due += [each.given_up_at for each in service._traffic.drains() if each.half]
                if service.processes.to_tell:
                    due.append(self.kernel.now + 0.1)
            if self.manager.needs_dispatcher and self.dispatcher is None:
                due.append(self.kernel.now + 0.1)
        return min(due, default=math.inf)

    def kill_dispatcher(self) -> None:
        assert self.dispatcher
        for each in self.dispatcher.held():
            each.lose("it was in the hands of a dispatcher that was killed")
        # Of one who was gone before the present manager began, only the dispatcher had the channel.
        # So it had of one that was not in the store yet.
        stored = self.keeper.held if self.keeper else {}
        # Not by name alone: it may be that of a later worker of the same name.
        named = (
            (p.channel, stored.get(f"{p.name}/channel")) for p in self.kernel.processes.values()
        )
        known = [channel for channel, fds in named if channel and fds == (channel.id,)]
        known += [r.channel for s in self.services for r in s.processes.running.values()]
        known += [c for s in self.services for c, _ in s.processes.dispatching.left.values()]
        links = (x for s in self.dispatcher.services.values()
                 for x in s.dispatcher._by_id.values())  # fmt: skip
        self.lose_in([x.channel for x in links if x.channel not in known], WITH_IT)
        self.dispatcher = None

    def _lose_left(self) -> None:
        """Lose what waits for workers that are gone: nobody has their channels any more."""
        for service in self.services:
            self.lose_in([c for c, _ in service.processes.dispatching.left.values()], WITH_IT)

    def lose_in(self, channels: list[Channel], why: str) -> None:
        """Lose the connections that wait in these channels, for a reason that excuses it."""
        for channel in channels:
            for item in channel.items:
                if not isinstance(item, int):
                    item[0].lose(why)

    def end_hook(self, service: Any, fault: str) -> None:
        order = service.hooks.order
        self.hooks.discard((service.name, order.generation, order.moment))
        service.hooks.end(fault)

    def forget_hooks(self, manager: Manager) -> None:
        """Forget hooks of which the next manager knows nothing: none may run."""
        known = {(s.name, s.hooks.order.generation, s.hooks.order.moment)
                 for s in manager.services if s.hooks.order}  # type: ignore[attr-defined]  # fmt: skip
        if self.hooks - known:
            raise Broken(f"a hook runs, and the next manager knows nothing of it: {self.hooks}")

    def die(self, how: str) -> None:
        """Kill the manager."""
        self.say("! the manager is killed {}", how)
        if self.dispatcher is None:
            self._lose_left()
        self.manager, self.dies_in_save = None, 0
        # Of a queue that was not stored yet only strangers have ends: one that stops closes its own
        # end to take from, and is told then that nobody takes.
        stored = {fd for fds in self.keeper.held.values() for fd in fds} if self.keeper else set()
        for end in self.kernel.ends.values():
            end.queue.is_shut |= bool(self.keeper) and end.queue.number + 1 not in stored
        self._lose_unkept()
        self.joint = {number: dict(ends) for number, ends in self.joint_saved.items()}
        self.deaths += 1
        if self.keeper is None or STATE not in self.keeper.held:
            self.rise()  # what the last one has who has it is not to die as well

    def kill_keeper(self) -> None:
        self.keeper = None
        self._lose_unkept()

    def _lose_unkept(self) -> None:
        """Lose what nobody has when manager and keeper have died, but for one of them."""
        if self.manager or self.keeper:
            return
        queues = [p.moves.number for p in self.kernel.living() if p.moves]
        queues += self.dispatcher.move_queues if self.dispatcher else []
        for end in self.kernel.ends.values():
            if end.queue.number not in queues:
                for each in end.queue.items:
                    each.lose(NOBODY)
                end.queue.items.clear()
        known = [p.channel for p in self.kernel.living() if p.channel]
        served = self.dispatcher.services.values() if self.dispatcher else ()
        known += [x.channel for s in served for x in s.dispatcher._by_id.values()]  # type: ignore[misc]
        dead = [p for p in self.kernel.processes.values() if p.life is Life.DEAD]
        self.lose_in([p.channel for p in dead if p.channel and p.channel not in known], NOBODY)

    def rise(self) -> None:
        """Start the next manager."""
        self.say("! the next manager goes on from what was saved")
        self.manager, self.is_aborted = Manager(self), False
        manager = self.manager
        manager.resume(self.state)
        for _ in range(2):  # their first facts come before the look at the config
            manager.turn()
        manager.catch_up()

    # --- What managers tell --------------------------------------------------------------------

    def begin(self, service: Any, fact: Fact) -> None:
        """Know that a fleet is about to take a fact."""
        self.facts += 1
        self._fact = fact
        if self.story is not None:
            service.actions.clear()
        self.unquiet = dict(service.fleet.unquiet)
        self._committed = service.fleet.current.spec if service.fleet.current else None

    def took(self, service: Any, fact: Fact) -> None:
        """Know that it has."""
        if self.story is not None:
            self.say("    {}: {}", service.name, tell_fact(fact))
            for action in service.actions:
                self.say("        {}", tell_action(action))
        fleet = service.fleet
        if self._committed and (was := self._committed) != fleet.current.spec:
            self._excuse_removed(was, fleet.current.spec)
        if self.unquiet and self.unquiet.keys() - fleet.unquiet.keys() - dict(fleet.fed).keys():
            for lease, since in self.unquiet.items():
                left = lease not in fleet.unquiet and lease not in dict(fleet.fed)
                if left and fact != Quiet(lease=lease):
                    self._give_up(service, lease, since)
        if fleet.stopping:
            self._excuse_stop(service)

    def _give_up(self, service: Any, lease: int, since: float) -> None:
        """See that a queue was given up: only after a while, and then who waits there is lost."""
        generations = service.fleet.generations.values()
        patience = min([g.spec.drain_timeout for g in generations], default=0.0)
        if service.fleet.is_nothing:
            patience = 0.0  # nobody will come: the first generation of a new service failed
        for address in sorted(service.had, key=str):
            group = self.kernel.groups.get(address)
            if group is None or not group.is_steered or lease >= len(group.queues):
                continue
            queue = group.queues[lease]
            if (queue.waiting or queue.half) and self.kernel.now < since + patience / 2:
                raise Broken(f"{service.name} gives up {queue}, in which clients wait, too soon")
            for each in (*queue.waiting, *queue.half):
                each.why_lost = "its queue was given up"

    def see_renewed(self, service: Any, at: Address, lease: int) -> None:
        """See that a queue is to be replaced, which may have been given up just now."""
        group = self.kernel.groups.get(at)
        left = lease in self.unquiet and lease not in service.fleet.unquiet
        if left and self._fact != Quiet(lease=lease) and group and lease < len(group.queues):
            for each in group.queues[lease].half:
                each.why_lost = "its queue was given up"

    def see_ended_moves(self, service: Any, ended: set[int]) -> None:
        """See that move queues were ended: only if nobody who serves on would take from them."""
        fleet = service.fleet
        for number in ended:
            self.kernel.ends[number].queue.ended_in = self.deaths
        serving = [each for each in (fleet.current, fleet.trial) if each and not fleet.stopping]
        for running in service.processes.running.values():
            process = running.process
            if process.moves is None or process.moves.number + 1 not in ended:
                continue
            for each in serving:
                is_alike = _moves_alike(each.spec, process.spec)
                if is_alike and (each is serving[-1] or any(True for _ in each.roster.active())):
                    raise Broken(f"{process.moves} of {process} is ended, and {each.number} takes")

    def _excuse_removed(self, was: Spec, now: Spec) -> None:
        """Who waits at a removed listener is served by those who serve there, if anybody does."""
        for address in was.removed(now):
            if group := self.kernel.groups.get(address):
                for queue in group.queues:
                    if any(p.takes and queue in p.queues for p in self.kernel.living()):
                        continue
                    for each in (*queue.waiting, *queue.half):
                        each.why_lost = "its listener was removed, and nobody served there"

    def _excuse_stop(self, service: Any) -> None:
        """In a stop only those are waited for whom somebody serves, and for half of a drain."""
        fleet = service.fleet
        if any(w.state is State.READY for w in fleet.workers()):
            return
        for address in service.addresses:
            if group := self.kernel.groups.get(address):
                for queue in group.queues:
                    for each in (*queue.waiting, *queue.half):
                        each.why_lost = "all were to stop"

    def note(self, name: str, together: Together, outcome: Outcome, *, stopped: bool) -> None:
        """Know how a service of a group ended: all or none of them."""
        if stopped:
            return
        ends = self.joint.setdefault(together.group, {})
        ends[name] = type(outcome).__name__
        if len(set(ends.values())) > 1:
            raise Broken(f"P6: group {together.group} is split: {ends}")

    def new_group(self, number: int) -> None:
        """Know that a reload has got this number; it is had again when nobody has it any more."""
        services: list[Any] = list(self.manager.services.by_name.values()) if self.manager else []
        pending = [s.fleet.pending.together for s in services if s.fleet.pending]
        waiting = {each.group for each in pending if each}
        waiting |= {f.together.group for s in services for f in s._facts.waiting
                    if getattr(f, "together", None)}  # fmt: skip
        if number not in waiting:
            self.joint.pop(number, None)

    def end(self, process: Process, status: int, excuse: str) -> None:
        """Let a process be dead, which is seen by whoever has its pidfd."""
        self.kernel.end(process, status, excuse)
        if process.hung and process.channel:
            for item in process.channel.items:
                if not isinstance(item, int):
                    item[0].why_lost = "it was passed to a worker that hung"
        self.say("    {} is dead: {}", process, excuse or status)
        if self.manager:
            self.manager.see_end(process)
        if self.dispatcher and process.channel:
            self.dispatcher.see_end(process.channel)

    def hook_runs(self, name: str, generation: int, moment: str) -> bool:
        return (name, generation, moment) in self.hooks

    def start_dispatcher(self) -> None:
        if not self.kernel.fails("spawn"):
            self.dispatcher = DispatcherProcess(self)

    # --- What is told of it ----------------------------------------------------------------------

    def say(self, words: str, *about: object) -> None:
        if self.story is not None:
            self.story.append(words.format(*about))

    # --- What there is ---------------------------------------------------------------------------

    def processes(self, *lives: Life) -> list[Process]:
        return [each for each in self.kernel.processes.values() if each.life in lives]

    def connections(self, *places: Place) -> list[Connection]:
        return [each for each in self.kernel.connections if each.place in places]

    @property
    def services(self) -> list[Any]:
        return list(self.manager.services.by_name.values()) if self.manager else []


def _moves_alike(one: Spec, other: Spec) -> bool:
    """Tell whether workers of one may have connections that workers of the other gave away."""
    return bool(one.moves) and one.moves == other.moves and one.addresses == other.addresses
