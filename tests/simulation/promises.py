"""What must hold after each step, whatever has happened; and what must hold when all is at rest.

P1 a configured listener is never closed. P2 somebody serves. P4 who dies is replaced. P5 whatever
waits has a deadline. P6 each request has one verdict, and no group is split. P7 the config in force
is what runs. P8 the death of a manager loses nothing. P9 nothing grows. P11 when nothing happens,
nothing wakes up. And each connection is where exactly one service answers for it.
"""

from __future__ import annotations

import math
from typing import Any

from sockmgr.config.spec import Address
from sockmgr.fleet.messages import Phase, State
from sockmgr.manager.restarts import DELAY_MAX
from sockmgr.manager.service.lease_map import addresses
from tests.simulation.kernel import Broken, Connection, Life, Place, Queue
from tests.simulation.world import World


def check(world: World) -> None:
    """Raise Broken if a promise is broken."""
    fed = _Fed()
    if world.kernel.connections:
        check_connections(world, fed)
        world.kernel.forget_ended()
    manager = world.manager
    if manager is None:
        return
    _check_kept(world)
    for service in world.services:
        _check_service(world, service, fed)


class _Fed(dict[Any, list[tuple[int, Queue]]]):
    """The leases that each service thinks are fed, each with its queues: worked out once a look."""

    def __missing__(self, service: Any) -> list[tuple[int, Queue]]:
        found = self[service] = list(service.fed())
        return found


def _check_kept(world: World) -> None:
    """P8: what the state names is held by the keeper; one that is gone is to be replaced."""
    manager, keeper = world.manager, world.keeper
    assert manager
    if keeper is None:
        if not manager.readers and manager.timers.next > world.kernel.now + DELAY_MAX:
            raise Broken("P5: there is no keeper, and none is to come")
    elif manager.saved.is_whole:
        held = {fd for fds in keeper.held.values() for fd in fds}
        for each in world.state.listeners:
            if not held.issuperset(each.inodes):
                raise Broken(f"P8: the keeper has not all of {each.listen.address}")


def is_in_force(world: World, address: Address) -> bool:
    """Whether a service that runs has a listener here, by the configs in force and loaded."""
    if world.manager is None:
        return any(each.address == address for each in world.state.config.listen)
    configs = world.manager.services.config, world.file
    fleets = [service.fleet for service in world.services if not service.fleet.stopping]
    specs = [fleet.current.spec for fleet in fleets if fleet.current]
    by_config = all(any(at.address == address for at in each.listen) for each in configs)
    return by_config and any(at.address == address for spec in specs for at in spec.listen)


def is_saved(world: World, address: Address) -> bool:
    """Whether the state has what is fed here."""
    fed = tuple(world.kernel.groups[address].fed.items())
    return any(each.listen.address == address and each.fed == fed for each in world.state.listeners)


def check_refusal(world: World, address: Address) -> None:
    """Raise Broken if a client must not be refused here."""
    manager = world.manager
    if manager is None or manager.is_stopping:
        return
    if is_in_force(world, address):
        raise Broken(f"P1: a client is refused at {address}, where a service serves")


# --- Connections ---------------------------------------------------------------------------------


def check_connections(world: World, fed: _Fed) -> None:
    """Raise Broken if one is nowhere, or where two services or none would answer it."""
    for each in world.kernel.connections:
        match each.place:
            case Place.HANDSHAKE | Place.QUEUED:
                _check_queued(world, each, fed)
            case Place.PASSED if not each.why_lost:
                _check_passed(world, each)
            case Place.ACCEPTED | Place.KEPT:
                if each.holder is None or each.holder.life is Life.DEAD:
                    raise Broken(f"{each} is with a process that is dead")
            case Place.MOVING if not each.why_lost:
                _check_moving(world, each)
            case Place.DISPATCHER:
                if world.dispatcher is None or each not in world.dispatcher.held():
                    raise Broken(f"{each} is with no dispatcher")
            case _:
                pass


def _check_queued(world: World, connection: Connection, fed: _Fed) -> None:
    queue = connection.queue
    assert queue
    if connection.why_lost or world.manager is None:
        return
    answering = who_answers(world, queue, fed)
    if len(answering) > 1:
        raise Broken(f"{connection} is in {queue}, which {' and '.join(sorted(answering))} answer")
    if answering or world.manager.is_stopping:
        return
    if any(queue in service.owed() for service in world.services):
        return
    group = world.kernel.groups.get(queue.address)
    if group and not group.is_steered:
        return  # whoever comes has this queue
    going = (g for s in world.services for g in (s.fleet.current, s.fleet.trial) if g and g.is_met)
    if not any(queue.address in each.spec.addresses for each in going):
        connection.why_lost = "its listener was removed, and all who took from there are gone"
        return
    raise Broken(f"{connection} is in {queue}, and nobody knows of it")


def who_answers(world: World, queue: Queue, fed: _Fed) -> set[str]:
    """Return the services whose workers take from a queue, or that have clients come there."""
    lives = (Life.BOOTING, Life.SERVING)
    processes = world.kernel.processes.values()
    found = {p.service for p in processes if p.life in lives and queue in p.queues}
    found |= {s.name for s in world.services
              if s.name not in found and any(each is queue for _, each in fed[s])}  # fmt: skip
    if world.dispatcher:
        found |= {n for n, served in world.dispatcher.services.items() if queue in served.taps}
    return found


def _check_passed(world: World, connection: Connection) -> None:
    for process in world.kernel.living():
        if process.channel and _has(process.channel, connection):
            return
    for service in world.services:
        dispatching = service.processes.dispatching
        channels = [each.process.channel for each in dispatching.workers.values()]
        if any(_has(channel, connection) for channel in channels if channel):
            return
        channels = [channel for channel, _ in dispatching.left.values()]
        if there := world.dispatcher and world.dispatcher.services.get(service.name):
            channels += [link.channel for link in there.dispatcher._by_id.values()]
        if any(_has(channel, connection) for channel in channels):
            return
    if world.manager and world.manager.is_stopping:
        return
    stored = [p.channel for p in world.kernel.processes.values() if p.channel]
    if world.dispatcher:
        stored += [link.channel for each in world.dispatcher.services.values()
                   for link in each.dispatcher._by_id.values()]  # fmt: skip
    if world.manager is None and any(_has(channel, connection) for channel in stored):
        return
    raise Broken(f"{connection} was passed to a worker that is gone, and nobody has its channel")


def _check_moving(world: World, connection: Connection) -> None:
    """Who was given away must be where somebody takes it, or will have somebody take it."""
    processes = [p for p in world.kernel.living() if p.moves and connection in p.moves.items]
    taking = [p for p in processes if p.life in (Life.BOOTING, Life.SERVING) and not p.hung]
    if any(p.channel is None for p in taking):
        return
    ends = world.kernel.ends.values()
    queue = next(each.queue for each in ends if connection in each.queue.items)
    if world.dispatcher and queue.number in world.dispatcher.move_queues:
        return
    known = {fd for fds in world.keeper.held.values() for fd in fds} if world.keeper else set[int]()
    for service in world.services:
        known |= set(service.processes.moves.descriptors.values())
    if queue.number + 1 in known and not queue.is_shut:
        return  # whoever is started next has it
    if queue.is_shut:
        connection.why_lost = "its move queue was ended, and nobody served"
        return
    raise Broken(f"{connection} is in {queue}, and nobody takes from there")


def _has(channel: Any, connection: Connection) -> bool:
    return any(not isinstance(item, int) and item[0] is connection for item in channel.items)


# --- One service ---------------------------------------------------------------------------------


def _check_service(world: World, service: Any, fed: _Fed) -> None:  # noqa: C901 - one promise each
    fleet = service.fleet
    if (asked := service.asked()) and asked - service.known():
        raise Broken(f"P6: {service.name} has forgotten requests {service.asked()}")
    if not service.is_at_rest:
        return  # it has not heard of everything
    ours = {id for id, each in service.processes.running.items()}
    theirs = {worker.id for worker in fleet.workers()}
    if ours != theirs:
        raise Broken(f"{service.name} has processes {sorted(ours)}, and knows {sorted(theirs)}")
    for id, running in service.processes.running.items():
        if running.process.life is Life.DEAD:
            raise Broken(f"{service.name}@{id} is dead, and nobody knows")
    waits = fleet.trial or fleet.unquiet or any(w.state is not State.READY for w in fleet.workers())
    held = fleet.trial and fleet.trial.phase is Phase.CANARY and fleet.trial.canary
    if waits and not (held and held.hold) and service.deadline == math.inf:
        decided = fleet.trial and fleet.trial.together
        if not decided:
            raise Broken(f"P5: {service.name} waits, and nothing is due")
    if fleet.stopping or fleet.current is None:
        return
    for listen in fleet.current.spec.listen:
        group = world.kernel.groups.get(listen.address)
        # It may have been removed by a reload, whose removal was cut short.
        is_shut = group is None or group.is_refusing
        if is_shut and is_in_force(world, listen.address):
            raise Broken(f"P1: {service.name} has {listen.address}, which takes nobody")
    _check_serves(world, service, fed)
    _check_passes(world, service, fed)


def _check_passes(world: World, service: Any, fed: _Fed) -> None:
    """P2: the dispatcher accepts from what is fed, unless workers of an earlier generation do."""
    there = world.dispatcher.services.get(service.name) if world.dispatcher else None
    has_any = service.processes.dispatching.workers
    if there is None or not has_any or service.fleet.feed_again < math.inf:
        return
    modes = service._traffic.modes
    for lease, queue in fed[service]:
        is_fed = queue.number in world.kernel.groups[queue.address].fed
        # Others have to wait for a worker that has the listener.
        is_passed = lease in modes.passed - modes.accept and queue.address in modes.meant
        if is_fed and is_passed and queue not in there.taps:
            raise Broken(f"P2: {service.name} is passed clients, and none from {queue}")


def _check_serves(world: World, service: Any, feeds: _Fed) -> None:
    """P2: if somebody can serve, somebody is fed who does."""
    fleet = service.fleet
    able = {
        w.lease
        for g in fleet.generations.values()
        if _may_be_met(g)
        for w in g.workers.values()
        if w.kind.serves and not w.rescue
    }
    fed = dict(fleet.fed)
    exclusive = any(g.spec.rollout.exclusive for g in (fleet.current, fleet.trial) if g)
    if able and not able & fed.keys() and fleet.current.wanted and not exclusive:
        raise Broken(f"P2: {service.name} feeds {fed}, and only {able} serve")
    if fleet.feed_again < math.inf:
        return
    _check_fed(world, service, feeds)
    thinks = service._traffic._fed
    if service.addresses and thinks.keys() != fed.keys():
        raise Broken(f"{service.name} is to feed {fed}, and feeds {list(thinks)}")


def _check_fed(world: World, service: Any, fed: _Fed) -> None:
    """P2: the kernel feeds each listener of which the service has the clients as that thinks."""
    fleet, mine = service.fleet, {id(queue) for _, queue in fed[service]}
    others = world.manager.services.owners.elsewhere(service.name)  # type: ignore[union-attr]
    for address in fleet.current.spec.addresses - others:
        group = world.kernel.groups.get(address)
        if group and group.is_steered and not group.is_refusing:
            for number in group.fed:
                if id(group.queues[number]) not in mine:
                    raise Broken(f"P2: {group.queues[number]} is fed, of which {service.name} "
                                 "does not know")  # fmt: skip


def _may_be_met(generation: Any) -> bool:
    """Whether clients may come to it: one that gets the listener of another service has to wait."""
    unproven = generation.phase in (Phase.BOOTING, Phase.CANARY) or generation.fault
    return not (unproven and generation.together and generation.spec.foreign)


# --- Rest ----------------------------------------------------------------------------------------


def restless(world: World) -> str:  # noqa: PLR0911 - one thing each
    """Say what keeps all from being at rest: one whole generation a service, and nobody waits."""
    manager = world.manager
    if world.is_over:
        return ""
    if manager is None or not manager.is_at_rest:
        return "the manager has not heard of everything"
    if world.keeper is None or not manager.saved.is_whole:
        return "the keeper has not everything"
    if manager.needs_dispatcher and world.dispatcher is None:
        return "there is no dispatcher"
    if manager.rollings or manager.endings:
        return "a reload or a stop is not over"
    if waiting := [
        c for c in world.kernel.connections if not (c.why_lost or c.place is Place.KEPT)
    ]:
        return f"{waiting[0]} at {waiting[0].address} is {waiting[0].place}"
    if manager.is_stopping:
        return "it stops"
    if any(process.hung for process in world.kernel.living()):
        return "a worker hangs"
    return next(filter(None, (_parts(service) for service in world.services)), "")


def _parts(service: Any) -> str:
    fleet, current = service.fleet, service.fleet.current
    if current is None or fleet.trial or fleet.pending or service.hooks.order:
        return f"{service.name} has a rollout"
    if fleet.unquiet or fleet.feed_again < math.inf:
        return f"{service.name} waits for queues"
    workers = list(fleet.workers())
    is_whole = (
        list(fleet.generations) == [current.number]
        and len(workers) == current.wanted
        and all(w.state is State.READY and not (w.recycle or w.hung) for w in workers)
    )
    return "" if is_whole else f"{service.name} is not whole"


def check_rest(world: World) -> None:  # noqa: C901, PLR0912 - one promise each
    """Raise Broken if something is left over, though all is at rest."""
    if world.is_over:
        if left := [p for p in world.kernel.living() if p.life is not Life.TOLD]:
            raise Broken(f"P9: {', '.join(map(str, left))} outlived the stop")
        return
    assert world.manager
    for service in world.services:
        if service.asked():
            raise Broken(f"P6: {service.name} never answers {service.asked()}")
        ages = service.fleet.current.spec.max_age
        if ages is None and service.deadline < math.inf:
            raise Broken(f"P11: {service.name} is at rest, and something is due")
        if service.addresses != addresses(service.fleet):
            raise Broken(f"{service.name} has addresses of the past")
        for channel, _ in service.processes.dispatching.left.values():
            # Where nobody is passed connections any more, questions of former dispatchers stay.
            if any(not isinstance(each, int) and not each[0].why_lost for each in channel.items):
                raise Broken(f"P9: {service.name} keeps clients of a worker that is gone")
        if list(service._traffic.drains()):
            raise Broken(f"P9: {service.name} waits for queues, and nobody knows why")
    _check_held(world)
    running = {r.process for s in world.services for r in s.processes.running.values()}
    if strays := [p for p in world.kernel.living() if p not in running]:
        raise Broken(f"P9: {', '.join(map(str, strays))} are nobody's")
    if world.hooks:
        raise Broken(f"P9: hooks run on: {world.hooks}")
    names = {service.name for service in world.manager.services.config.services}
    there = set(world.manager.services.by_name)
    # A stop was cut short, and the next manager cannot do what the config says: it runs the rest.
    if there != names and not (world.is_refused and there < names):
        raise Broken(f"P7: the config in force has {sorted(names)}, and {sorted(there)} run")
    for service in world.services:
        _check_reachable(world, service)
    for process in world.processes(Life.SERVING):
        # Who was to stop, or to be replaced, when a manager died serves on with what he has.
        if process.moves and process.moves.ended_in == world.deaths:
            raise Broken(f"at rest {process} could give its connections to nobody")


def _check_held(world: World) -> None:
    """P9: the keeper holds all that there is, and nothing else."""
    assert world.keeper
    assert world.manager
    names = {"@state"}
    for service in world.services:
        names |= service.processes.moves.descriptors.keys()
        for running in service.processes.running.values():
            names |= {f"{running.name}/{role}" for role in running.descriptors}
    held = world.keeper.held
    if unlike := names ^ {name for name in held if "#" not in name}:
        raise Broken(f"P9: the keeper holds, or lacks, {sorted(unlike)}")
    queues = {inode for each in world.manager.listeners.all for inode in each.inodes}
    if unlike := queues ^ {fd for name, fds in held.items() if "#" in name for fd in fds}:
        raise Broken(f"P9: the keeper holds queues, or lacks them: {len(unlike)}")


def _check_reachable(world: World, service: Any) -> None:
    """Have a client come to each listener of the service, and see that this service answers."""
    for listen in service.fleet.current.spec.listen:
        came = world.kernel.connect(listen.address, slow=False)
        if came is None:
            raise Broken(f"P1: at rest a client is refused at {listen.address}")
        for _ in range(4 + len(world.kernel.connections)):  # others may wait, who are excused
            world.run()
            for process in world.processes(Life.SERVING):
                while process.takes and came.place is not Place.ACCEPTED and process.accept():
                    if came.place is not Place.ACCEPTED and process.held:
                        process.answer()
            _make_room(world, came)
        if came.place is not Place.ACCEPTED or came.holder is None:
            raise Broken(f"P2: at rest nobody answers at {listen.address}: it is {came.place}")
        if came.holder.service != service.name:
            raise Broken(f"a client of {service.name} meets {came.holder}")
        came.holder.answer()
        world.kernel.forget_ended()


def _make_room(world: World, came: Connection) -> None:
    """Have those who are kept ask once more, and go: they may take the place of who has come."""
    for process in world.processes(Life.SERVING):
        while process.takes and process.kept and came.place is not Place.ACCEPTED:
            process.ask()
            process.answer()
