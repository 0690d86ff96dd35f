"""What can happen next in a world, one thing a function; each returns what happened, in words.

A step is a verb and a number, which says to whom: of n that are there it means number % n. So a
step means something in nearly any world, also when those before it are left out (shrinking.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sockmgr.fleet.messages import (
    CheckPassed,
    Health,
    Hung,
    Phase,
    Promote,
    Recycle,
    Scale,
    State,
    TakeBack,
    WorkerReady,
)
from tests.simulation import keeping, promises
from tests.simulation.configs import BROKEN
from tests.simulation.kernel import Broken, Life, Place
from tests.simulation.manager import Died
from tests.simulation.world import Told, World

T = TypeVar("T")

PROMPT, LATE, UNSAVED = 0, 1, 2  # the manager acts and saves, does not look, or has not saved yet
STATUSES = (1, 0, BROKEN, -9, -11)
WAITS = (0.01, 0.3, 0.6, 1.1, 2.5, 6.0, 12.0, 40.0)


class Step(NamedTuple):
    """One step; `when` says when the manager acts on it."""

    verb: str
    number: int
    when: int = PROMPT

    def __str__(self) -> str:
        return f"{self.verb} {self.number} {self.when}"

    @classmethod
    def read(cls, line: str) -> Step:
        verb, number, when = line.split()
        return cls(verb, int(number), int(when))


def take(world: World, step: Step) -> bool:
    """Let it happen, if it can, and check every promise; tell whether it could."""
    if world.is_over or (told := _happened(world, step)) is None:
        return False
    if world.story is not None:
        late = ("", " (the manager does not look yet)", " (and has not saved it yet)")[step.when]
        world.say("> " + told[0] + late, *told[1:])
    if step.when != LATE:
        world.run()
        if step.when == PROMPT and world.manager and world.is_unsaved:
            world.save()
    promises.check(world)
    return True


def _happened(world: World, step: Step) -> Told:
    try:
        return VERBS[step.verb](world, step.number)
    except Died:
        world.die("in the middle of a save")
        return "{}, and the manager dies of it", step.verb


# --- People --------------------------------------------------------------------------------------


def reload(world: World, number: int) -> Told:
    if not world.manager:
        return None
    which, rest = _one(world.configs, number)
    world.file, world.is_missing = which, rest % 16 == 5
    services = [service.name for service in which.services]
    name = services[rest % len(services)] if rest % 4 == 0 else ""
    why = world.manager.reload((name,) if name else (), together=rest % 5 == 1)
    return "somebody reloads {} by config {}{}", name or "all", which_of(world), _refused(why)


def edit(world: World, number: int) -> Told:
    world.file, _ = _one(world.configs, number)
    world.is_missing = False
    return "somebody edits the config, which is number {} now, and does not reload", which_of(world)


def storm(world: World, number: int) -> Told:
    if not world.manager:
        return None
    whys = [world.manager.reload((), together=False) for _ in range(2 + number % 3)]
    return "somebody reloads all {} times in a row{}", len(whys), _refused(whys[0])


def roll_back(world: World, number: int) -> Told:
    if not (services := world.services):
        return None
    service, _ = _one(services, number)
    assert world.manager
    why = world.manager.roll_back(service.name)
    return "somebody rolls {} back{}", service.name, _refused(why)


def scale(world: World, number: int) -> Told:
    if not (services := world.services) or world.manager.is_stopping:  # type: ignore[union-attr]
        return None
    service, rest = _one(services, number)
    service.put(Scale(workers=rest % 4 + 1))
    return "somebody wants {} workers of {}", rest % 4 + 1, service.name


def decide(world: World, number: int) -> Told:
    trials = [s for s in world.services if s.fleet.trial]
    if not trials:
        return None
    service, rest = _one(trials, number)
    trial = service.fleet.trial
    service.join(trial)
    if rest % 3 == 0:
        service.put(TakeBack(generation=trial.number, why="taken back by somebody: a worker"))
        return "somebody takes generation {} of {} back", trial.number, service.name
    service.put(Promote(generation=trial.number))
    return "somebody promotes generation {} of {}", trial.number, service.name


def restart_worker(world: World, number: int) -> Told:
    if (found := _known(world, number, State.STARTING, State.READY)) is None:
        return None
    service, worker = found
    service.put(Recycle(worker=worker.id, why="its restart was asked for"))
    return "somebody restarts worker {}@{}", service.name, worker.id


def stop(world: World, number: int) -> Told:
    if not world.manager or world.manager.is_stopping:
        return None
    world.manager.stop(now=number % 4 == 0)
    return "all is to stop{}", " now" if number % 4 == 0 else ""


# --- Workers -------------------------------------------------------------------------------------


def ready(world: World, number: int) -> Told:
    if not (booting := world.processes(Life.BOOTING)):
        return None
    process, rest = _one(booting, number)
    process.life = Life.SERVING
    lost = rest % 12 == 7 and process.channel is None
    if world.manager and process.channel is None and not lost:
        world.manager.put(process.service, WorkerReady(worker=process.id))
    return "{} is ready{}", process, ", and nobody hears it" if lost else ""


def boot(world: World, number: int) -> Told:
    """All that start are ready: a schedule comes further."""
    del number
    if not (booting := world.processes(Life.BOOTING)):
        return None
    for process in booting:
        process.life = Life.SERVING
        if world.manager and process.channel is None:
            world.manager.put(process.service, WorkerReady(worker=process.id))
    return ("{} are ready", ", ".join(map(str, booting)))


def crash(world: World, number: int) -> Told:
    if not (living := world.kernel.living()):
        return None
    process, rest = _one(living, number)
    status = STATUSES[rest % len(STATUSES)]
    world.end(process, status, "it crashed")
    return "{} ends with status {}", process, status


def leave(world: World, number: int) -> Told:
    if not (serving := world.processes(Life.SERVING)):
        return None
    process, rest = _one(serving, number)
    process.be_told()
    lost = rest % 3 == 0
    if world.manager and not lost:
        world.manager.hear_leaving(process)
    return "{} stops by itself{}", process, ", and does not say so" if lost else ""


def finish(world: World, number: int) -> Told:
    if not (told := world.processes(Life.TOLD)):
        return None
    process, _ = _one(told, number)
    _leave_nothing(process)
    world.end(process, 0, "")
    return "{} has answered everybody, and ends", process


def hang(world: World, number: int) -> Told:
    if not (serving := [p for p in world.processes(Life.SERVING) if not p.hung]):
        return None
    process, rest = _one(serving, number)
    process.hung = True
    seen = rest % 3
    if world.manager and seen:
        world.manager.put(process.service, Hung(worker=process.id, why="hung: silent for 60 s"))
    return "{} hangs{}", process, "" if seen else ", and nobody sees it"


def health(world: World, number: int) -> Told:
    if (found := _known(world, number, State.READY)) is None:
        return None
    service, worker = found
    why = "" if worker.unhealthy else "probe GET /up answered 500"
    service.put(Health(worker=worker.id, why=why))
    return "worker {}@{} is {}", service.name, worker.id, "unhealthy" if why else "healthy again"


def hook(world: World, number: int) -> Told:
    hooks = [s for s in world.services if s.hooks.order and s.hooks.is_running]
    if not hooks:
        return None
    service, rest = _one(hooks, number)
    fault = "exited with status 1" if rest % 3 == 0 else ""
    moment = service.hooks.order.moment
    world.end_hook(service, fault)
    return "hook {} of {} ends{}", moment, service.name, f": {fault}" if fault else ""


def check(world: World, number: int) -> Told:
    canaries = [s for s in world.services if s.fleet.trial and s.fleet.trial.share]
    if not canaries:
        return None
    service, rest = _one(canaries, number)
    trial = service.fleet.trial
    if rest % 4 == 0:
        why = "its check did not pass: worker"
        service.put(TakeBack(generation=trial.number, why=why))
        return "the check of the canary of {} fails", service.name
    service.put(CheckPassed(generation=trial.number, step=trial.step - (rest % 8 == 1)))
    return "a check of the canary of {} passes", service.name


# --- Clients -------------------------------------------------------------------------------------


def connect(world: World, number: int) -> Told:
    if not (addresses := sorted(world.kernel.groups, key=str)):
        return None
    address, rest = _one(addresses, number)
    slow = rest % 3 == 0
    found = world.kernel.connect(address, slow=slow)
    if found and not promises.is_in_force(world, address):
        found.why_lost = "it came where no config in force has a listener"
    if found and not world.manager and not promises.is_saved(world, address):
        found.why_lost = "it came by a program of which no state tells: a save was cut short"
    if found is None:
        promises.check_refusal(world, address)
        return "a client is refused at {}", address
    where = found.queue.number if found.queue else -1
    how = "begins a handshake" if found.place is Place.HANDSHAKE else "comes"
    return "client {} {} at {}, to queue {}", found.number, how, address, where


def complete(world: World, number: int) -> Told:
    if not (half := world.connections(Place.HANDSHAKE)):
        return None
    connection, _ = _one(half, number)
    world.kernel.complete(connection)
    return "client {} ends its handshake", connection.number


def accept(world: World, number: int) -> Told:
    able = [p for p in world.processes(Life.SERVING) if p.takes and _can_take(p)]
    if not able:
        return None
    process, _ = _one(able, number)
    connection = process.accept()
    if connection is None:
        return "{} answers what it was asked", process
    return "{} accepts {}", process, connection


def answer(world: World, number: int) -> Told:
    if not (busy := [p for p in world.kernel.living() if p.held and not p.hung]):
        return None
    process, _ = _one(busy, number)
    return "{} answers {}", process, process.answer()


# --- Clients that keep their connection ----------------------------------------------------------


def keep(world: World, number: int) -> Told:
    apps = [p for p in world.kernel.living() if p.moves and not p.hung]
    if not (able := [p for p in apps if p.held or (p.takes and _can_take(p))]):
        return None
    process, _ = _one(able, number)
    while process.takes and process.accept():
        pass
    kept = [str(process.keep()) for _ in range(len(process.held))]
    return "{} answers {}, and keeps them", process, ", ".join(kept) or "what it was asked"


def ask(world: World, number: int) -> Told:
    if not (able := [p for p in world.kernel.living() if p.kept and not p.hung]):
        return None
    process, _ = _one(able, number)
    return "{} is asked again by {}", process, process.ask()


def part(world: World, number: int) -> Told:
    """Have one that stops give away, or close, one of those that it has kept."""
    if not (able := [p for p in world.processes(Life.TOLD) if p.kept and not p.hung]):
        return None
    process, _ = _one(able, number)
    connection = process.part()
    if connection.place is Place.MOVING:
        return "{} gives {} away by {}", process, connection, process.moves
    return "{} closes {}, which nobody would take", process, connection


def take_over(world: World, number: int) -> Told:
    able = [p for p in world.processes(Life.SERVING) if p.takes and p.may_take_over]
    if not able:
        return None
    process, _ = _one(able, number)
    return "{} takes over {}", process, process.take_over()


# --- Time, deaths, shortage ----------------------------------------------------------------------


def wait(world: World, number: int) -> Told:
    choice, rest = _one(WAITS, number)
    now = world.kernel.now
    due = min(world.next_due(), now + 60)
    until = due if rest % 2 and due > now else now + choice
    world.pass_time(until)
    return "{} s pass", f"{until - now:.15g}"


def fail(world: World, number: int) -> Told:
    what, rest = _one(("spawn", "pair", "steer", "bind"), number)
    world.kernel.short[what] = rest % 3 + 1
    names = {"spawn": "starts of a process fail (EAGAIN)", "steer": "programs are refused (ENOMEM)",
             "bind": "sockets cannot be opened (EMFILE)",
             "pair": "move queues cannot be made (EMFILE)"}  # fmt: skip
    return "the next {} {}", rest % 3 + 1, names[what]


def refuse(world: World, number: int) -> Told:
    """Have something fail around the keeper."""
    what, rest = _one(("keep", "keeper"), number)
    world.kernel.short[what] = rest % 3 + 1
    names = {"keep": "descriptors are too many for the keeper (EMFILE)",
             "keeper": "keepers cannot be started (EAGAIN)"}  # fmt: skip
    return "the next {} {}", rest % 3 + 1, names[what]


def die(world: World, number: int) -> Told:
    if world.manager is None:
        world.rise()
        return ("the next manager has begun",)
    if keeping.would_lose(world):
        return None
    if number % 3 == 0:
        world.dies_in_save = 1 + number // 3 % 12
        return ("the manager is to die in the middle of its next save",)
    world.die("")
    if number % 3 == 1 or world.manager:
        if not world.manager:
            world.rise()
        return ("another manager is there at once",)
    return ("nobody starts another manager for now",)


def dispatcher_dies(world: World, number: int) -> Told:
    if world.dispatcher is None:
        return None
    world.kill_dispatcher()
    if number % 4 == 0 and world.manager and not keeping.would_lose(world):
        world.die("with the dispatcher")
        return ("dispatcher and manager are dead",)
    return ("the dispatcher is dead",)


def keeper_dies(world: World, number: int) -> Told:
    """Have it die, with the manager or alone, where others have all that the state names."""
    if (before := world.keeper) is None:
        return None
    is_joint = number % 3 == 0 or world.manager is None
    world.keeper = None
    if is_joint and keeping.would_lose(world):
        world.keeper = before
        return None
    world.kill_keeper()
    if world.manager is None:
        world.rise()
        return ("the keeper is dead, and the next manager has begun",)
    if is_joint:
        world.die("with the keeper")
        return ("keeper and manager are dead, and the next manager has begun",)
    return ("the keeper is dead",)


VERBS: dict[str, Callable[[World, int], Told]] = {
    "reload": reload, "edit": edit, "storm": storm, "roll-back": roll_back, "scale": scale,
    "decide": decide, "restart-worker": restart_worker, "stop": stop, "ready": ready, "boot": boot,
    "crash": crash, "leave": leave, "finish": finish, "hang": hang, "health": health, "hook": hook,
    "check": check, "connect": connect, "complete": complete, "accept": accept, "answer": answer,
    "keep": keep, "ask": ask, "part": part, "take-over": take_over,
    "wait": wait, "fail": fail, "die": die, "dispatcher-dies": dispatcher_dies,
    "keeper-dies": keeper_dies, "refuse": refuse,
}  # fmt: skip
_WEIGHTS = {
    "reload": 9, "edit": 1, "storm": 2, "roll-back": 2, "scale": 2, "decide": 2,
    "restart-worker": 1, "stop": 0.6, "ready": 16, "boot": 6, "crash": 4, "leave": 2, "finish": 12,
    "hang": 1.5, "health": 1.5, "hook": 6, "check": 3, "connect": 16, "complete": 7, "accept": 8,
    "answer": 5, "keep": 12, "ask": 1, "part": 3, "take-over": 3, "wait": 18, "fail": 1.2,
    "die": 3, "dispatcher-dies": 1.2, "keeper-dies": 2, "refuse": 0.6,
}  # fmt: skip
_NAMES = list(_WEIGHTS)
_CUMULATED = [sum(list(_WEIGHTS.values())[: n + 1]) for n in range(len(_WEIGHTS))]


def drawn(dice: random.Random) -> Step:
    """Draw a step, which need not be possible."""
    verb = dice.choices(_NAMES, cum_weights=_CUMULATED)[0]
    when = dice.random()
    late = LATE if when < 0.12 else UNSAVED if when < 0.2 else PROMPT
    return Step(verb, dice.randrange(1 << 16), late)


# --- A kind end ----------------------------------------------------------------------------------


def settle(world: World) -> None:
    """Let everything go well from now on: all must come to rest, and every client be answered."""
    world.say("> from now on all goes well")
    world.kernel.short.clear()
    world.dies_in_save = 0
    why, idle = "", 0
    for _ in range(300):
        if world.is_over:
            break
        if world.manager is None:
            world.rise()
        _be_kind(world)
        world.run()
        if world.manager and world.is_unsaved:
            world.save()
        promises.check(world)
        if not (why := promises.restless(world)):
            break
        if _may_go_on(world):
            idle = 0
        elif (due := world.next_due()) < math.inf:
            world.pass_time(max(due, world.kernel.now))
        elif (idle := idle + 1) > 2:
            raise Broken(f"P5: it waits for ever, and nothing is due: {why}")
    else:
        raise Broken(f"P5: it never comes to rest, though all goes well: {why}")
    promises.check_rest(world)


def _be_kind(world: World) -> None:  # noqa: C901, PLR0912 - one thing each
    for connection in world.connections(Place.HANDSHAKE):
        world.kernel.complete(connection)
    for process in world.processes(Life.BOOTING):
        process.life = Life.SERVING
    for service in world.services:
        if service.hooks.order and service.hooks.is_running:
            world.end_hook(service, "")
        trial = service.fleet.trial
        if trial and trial.phase is Phase.CANARY and trial.canary:
            if trial.canary.check and not trial.checked:
                service.put(CheckPassed(generation=trial.number, step=trial.step))
            if trial.deadline == float("inf"):
                service.put(Promote(generation=trial.number))
        for worker in service.fleet.workers():
            _cheer(service, worker)
    for process in world.kernel.living():
        if process.hung:
            continue
        while process.takes and process.accept():
            pass
        while process.takes and process.may_take_over:
            process.take_over()
        if process.life is Life.TOLD:
            _leave_nothing(process)
            world.end(process, 0, "")
        while process.held:
            process.answer()
        if process.channel and process.spec.max_connections:
            while process.kept:  # its client goes away, so that others can come
                process.ask()
                process.answer()


def _cheer(service: Any, worker: Any) -> None:
    running = service.processes.running.get(worker.id)
    if worker.unhealthy:
        service.put(Health(worker=worker.id, why=""))
    process = running.process if running else None
    if process and process.hung and worker.state is State.READY and not worker.hung:
        service.put(Hung(worker=worker.id, why="hung: it is"))
    serves = process and process.life is Life.SERVING and process.channel is None
    if worker.state is State.STARTING and serves:
        service.put(WorkerReady(worker=worker.id))


def _may_go_on(world: World) -> bool:
    """Tell whether somebody can still do something though no time passes."""
    if world.manager is None or not world.manager.is_at_rest:
        return True
    return bool(
        world.processes(Life.BOOTING)
        or any(not p.hung for p in world.processes(Life.TOLD))
        or world.connections(Place.HANDSHAKE)
        or any(p.takes and (_can_take(p) or p.may_take_over) for p in world.processes(Life.SERVING))
    )


# --- Small things --------------------------------------------------------------------------------


def which_of(world: World) -> int:
    return next(n for n, each in enumerate(world.configs) if each is world.file)


def _refused(why: str) -> str:
    return f": refused, {why}" if why else ""


def _one(among: Sequence[T], number: int) -> tuple[T, int]:
    rest, which = divmod(number, len(among))
    return among[which], rest


def _known(world: World, number: int, *states: State) -> tuple[Any, Any] | None:
    found = [(s, w) for s in world.services for w in s.fleet.workers() if w.state in states]
    return _one(found, number)[0] if found else None


def _leave_nothing(process: Any) -> None:
    """Have one that stops do all that it does before it ends."""
    process.take_all()
    while process.held:
        process.answer()
    while process.kept:
        process.part()


def _can_take(process: Any) -> bool:
    if process.channel is not None:
        return bool(process.channel.items)
    return any(queue.waiting for queue in process.queues)
