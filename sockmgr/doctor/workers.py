"""Look at what a manager reports of its workers and listeners, and at their processes in /proc."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sockmgr.api.records import EventKind, event
from sockmgr.api.types import ListenerStatus, LogLine, ServiceStatus, Status, WorkerStatus
from sockmgr.config.config import Config, ServiceConfig
from sockmgr.config.spec import Accept, Accepting, Listen, traits_of
from sockmgr.doctor import processes, resources
from sockmgr.doctor.finding import Check, Finding
from sockmgr.doctor.machine import outgoing_ports
from sockmgr.doctor.start import open_files
from sockmgr.fleet.endings import SIGNAL_NAMES
from sockmgr.kernel import delegation, procfs, readiness
from sockmgr.kernel.listening import Listening, listening
from sockmgr.kernel.queues import reachable
from sockmgr.kernel.steering.pool import Choice
from sockmgr.launch import last_words, presets
from sockmgr.terminal.format import count

LOOKS, LOOK_DELAY = 20, 0.01
MANY = 3  # failures in a row; fewer may have a cause that passes
_READY_TIMEOUT, _TERM = 60.0, 15  # of a service whose config is not known
_NAMED_BY = 10.0  # seconds after its start a generation has a name; a command may take 5
_WAYS_OUT = (
    "end the wrapper with exec, put `python -m sockmgr.exec` before the server, or name the "
    "descriptor in the command ({NAME}): docs/servers.md, Wrappers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The inodes of a manager's own sockets, and all sockets that listen on TCP, by inode."""

    own: frozenset[int]
    tcp: Mapping[int, Listening] = field(default_factory=dict)


def examine(status: Status, config: Config | None, *, visible: bool) -> Iterator[Finding]:
    """Look at everything a manager runs; `config` is the config it runs, None if not known.

    Its processes are looked at only if they are `visible` under their pids here.
    """
    pid = status.manager.pid
    sight = look(pid) if visible else Sight(own=frozenset())
    services = {service.name: service for service in config.services} if config else {}
    if visible and config and (limit := processes.open_files_limit(pid)):
        whose = f"the manager (pid {pid})"
        yield from open_files(config, limit, whose, Check.MANAGER_OPEN_FILES)
    if visible:
        yield from resources.examine(services.values(), Check.NOT_LIMITED, delegation.find(pid))
    for name, service in status.services.items():
        found = list(_service(name, service, services.get(name), sight)) if visible else []
        idle = name in services and not services[name].listen
        yield from found or _shortage(name, service, listens=not idle)
        yield from _history(name, service)
    listens = config.listens() if config else {}
    booting = any(w.state == "starting" for s in status.services.values() for w in s.workers)
    for name, listener in status.listeners.items():
        yield from _listener(name, listener, services.values())
        if name in listens and not booting:  # servers call listen(2) as they start
            yield from _shrunk(listens[name], listener, sight)


def look(pid: int) -> Sight:
    """Look at the sockets of a manager, as far as that is permitted."""
    tcp: dict[int, Listening] = {}
    with contextlib.suppress(OSError):  # doctor/machine has a finding for that
        tcp = {one.inode: one for one in listening()} if processes.shares_network(pid) else {}
    return Sight(own=procfs.sockets_of(pid), tcp=tcp)


def _listener(
    name: str, listener: ListenerStatus, services: Iterable[ServiceConfig]
) -> Iterator[Finding]:
    steerable = traits_of(listener.address).is_internet
    exclusive = any(name in s.listen and s.rollout.exclusive for s in services)
    if steerable and listener.cutover == "overlap" and not exclusive:
        yield Check.OVERLAP.found(
            subject=f"listen.{name}",
            what=f"listener {name} cannot be steered",
            why="at a reload old workers may accept a connection while they are told to stop, and "
            "close it unread",
            fix="the manager's log says why (cut-overs overlap); under systemd, units of "
            "`sockmgr units` mend it",
        )
    if listener.choice == Choice.RANDOM:
        yield Check.RANDOM_QUEUES.found(
            subject=f"listen.{name}",
            what=f"the queues of listener {name} are chosen at random",
            why="some workers get more connections than others; none is lost",
            fix="the manager's log says why (queues chosen at random); as a rule, give it CAP_BPF",
        )
    yield from _full(name, listener)


def _full(name: str, listener: ListenerStatus) -> Iterator[Finding]:
    datagrams = traits_of(listener.address).is_datagram
    if not datagrams and listener.queue >= listener.backlog > 0:
        yield Check.QUEUE_FULL.found(
            subject=f"listen.{name}",
            what=f"{listener.queue} connections wait on listener {name}, which may hold "
            f"{listener.backlog}",
            why="who comes now is turned away",
            fix="see what keeps the workers from accepting, run more (sockmgr scale), or raise "
            "backlog and net.core.somaxconn",
        )


def _shrunk(listen: Listen, listener: ListenerStatus, sight: Sight) -> Iterator[Finding]:
    if traits_of(listener.address).is_datagram:
        return
    queues = [
        one.backlog
        for inode, one in sight.tcp.items()
        if inode in sight.own and f"tcp://{one}" == listener.address
    ]
    least = min([listener.backlog, *queues])
    wanted = reachable(listen)
    if least < wanted:
        yield Check.LISTENER_SHRUNK.found(
            subject=f"listen.{listen.name}",
            what=f"listener {listen.name} lets {least} connections wait, not {wanted}",
            why="a worker called listen(2) with less after it was ready, or the config was changed "
            "since the last reload: who comes in a burst is turned away",
            fix=f"reload, which sets it to {wanted}; if a worker shrinks it again, have the server "
            f"listen with a backlog of {wanted}",
        )


def _service(
    name: str, service: ServiceStatus, config: ServiceConfig | None, sight: Sight
) -> Iterator[Finding]:
    seen: dict[Finding, list[str]] = {}  # all workers with the same symptom get one finding
    for worker in service.workers:
        if worker.pid and worker.state in ("starting", "ready"):
            for symptom in _symptoms(worker, config, sight):
                seen.setdefault(symptom, []).append(worker.name(name))
    for symptom, workers in seen.items():
        what = f"{_some(workers)}: {symptom.what}"
        yield replace(symptom, subject=f"service.{name}", what=what)


def _shortage(name: str, service: ServiceStatus, *, listens: bool) -> Iterator[Finding]:
    """Find services with too few workers, for a reason that their processes do not show."""
    fix = f"`sockmgr logs {name}` has the last words of each; reload when it is mended"
    if service.state == "down":
        yield Check.SERVICE_DOWN.found(
            subject=f"service.{name}",
            what=f"no worker of {name} serves, and those that are started fail",
            why="connections wait until the queue is full" if listens else "nobody does its work",
            fix=fix,
        )
    elif service.state == "degraded" and service.failures >= MANY:
        yield Check.SERVICE_DEGRADED.found(
            subject=f"service.{name}",
            what=f"{service.ready} of {service.wanted} workers of {name} serve, and "
            f"{service.failures} failed one after another that were to join them",
            why="the others carry its load, and a reload may be aborted by the same fault",
            fix=f"{fix}. Usual causes are a pidfile, or a port, that only one can have",
        )


def refused(name: str, lines: Sequence[LogLine]) -> Iterator[Finding]:
    """Find in the last lines of a service without enough workers what stops them."""
    turns = (event(EventKind.HOOK_FAILED), event(EventKind.WORKER_STARTED))
    last = next((line.message for line in reversed(lines) if line.event in turns), "")
    if "hook=before" in last:
        fault = last.partition(" why=")[2].strip("'\"")
        yield Check.HOOK_FAILS.found(
            subject=f"service.{name}",
            what=f"the hook before of {name} fails: {fault}",
            why="no worker is started before it succeeds; it is tried again, every 30 s at least",
            fix=f"`sockmgr logs {name}` has what it printed",
        )
    if last_words.is_refused_code(line.message for line in lines):
        yield Check.CODE_REFUSED.found(
            subject=f"service.{name}",
            what=f"{name}: {last_words.NO_CODE}",
            why="its workers fail when they compile, as numba, callbacks of cffi, Node and other "
            "JIT compilers do at their start",
            fix=last_words.ALLOW_CODE,
        )


def _history(name: str, service: ServiceStatus) -> Iterator[Finding]:
    yield from _bad_ends(name, service)
    for harm in dict.fromkeys(service.repairs):
        yield Check.LISTENER_HARMED.found(
            subject=f"service.{name}",
            what=harm,
            why="it is mended each time, but connections that came meanwhile were refused or reset",
            fix="the program must leave the listener alone: no shutdown(2), no removal of its "
            "path (docs/servers.md)",
        )


def unnamed(services: Mapping[str, ServiceStatus], config: Config) -> Iterator[Finding]:
    """Find releases that run, and whose name could not be found out."""
    for service in config.services:
        running = services.get(service.name)
        if service.release is None or running is None or running.release:
            continue
        ages = [w.age for w in running.workers if w.generation == running.generation]
        if max(ages, default=0.0) > _NAMED_BY:
            yield Check.RELEASE_UNNAMED.found(
                subject=f"service.{service.name}",
                what=f"what generation {running.generation} of {service.name} is called could not "
                "be found out",
                why="it has no name in status, history and events",
                fix="sockmgr events has the reason: release has no name",
            )


def _bad_ends(name: str, service: ServiceStatus) -> Iterator[Finding]:
    if service.killed:
        yield Check.WORKERS_KILLED.found(
            subject=f"service.{name}",
            what=f"{count(service.killed, 'worker')} of {name} had to be killed since the manager "
            "started",
            why="told to stop, they did not end within drain_timeout, or too many were draining: "
            "what they had in hand is lost",
            fix="see whether the program ends when it gets its stop_signal; if it only needs "
            "longer, raise drain_timeout (the log says which: worker killed)",
        )
    if service.died:
        yield Check.WORKERS_DIED.found(
            subject=f"service.{name}",
            what=f"{count(service.died, 'worker')} of {name} died when told to stop, since the "
            "last reload",
            why="a signal or a bad status ended them, not their own way out: what they had in hand "
            "is lost",
            fix="see what they printed last, and what their stop_signal does (sockmgr events: "
            "worker ended)",
        )


def _symptoms(
    worker: WorkerStatus, config: ServiceConfig | None, sight: Sight
) -> Iterator[Finding]:
    tree = [worker.pid, *procfs.descendants(worker.pid)]
    held = frozenset[int]().union(*map(procfs.sockets_of, tree))
    lent, alone = held & sight.own, held - sight.own & sight.tcp.keys()
    if worker.probe:
        yield Check.PROBE_FAILS.found(
            what=worker.probe,
            why="one that boots is not ready before it passes, and a reload ends at its "
            "ready_timeout; one that serves is replaced",
            fix="have the application answer it, or correct ready or healthy",
        )
    if worker.state == "ready":
        yield from _stop_signal(tree, lent, config) if lent else ()
        yield from _extra_port(alone, sight)
    if config is None or config.listen:
        yield from _deaf(worker, config, lent, alone)
    yield from _deleted(worker.pid)


def _deleted(pid: int) -> Iterator[Finding]:
    if processes.is_deleted(pid, "cwd"):
        yield Check.DIRECTORY_DELETED.found(
            what=f"the working directory {processes.target(pid, 'cwd')} was deleted",
            why="what is loaded from now on is missing, and a worker that dies cannot be replaced",
            fix="reload, then delete older releases only when no worker has them",
        )
    if processes.is_deleted(pid, "exe"):
        yield Check.PROGRAM_REPLACED.found(
            what=f"{processes.target(pid, 'exe')} was replaced or deleted since the start",
            why="old code goes on, and a worker that dies is replaced by the new",
            fix="reload",
        )


def _stop_signal(
    tree: list[int], lent: frozenset[int], config: ServiceConfig | None
) -> Iterator[Finding]:
    number = presets.stop_signal(config) if config else _TERM
    found = processes.signals(tree[0])
    if found and found.dies_of(number):  # then the topmost descendant that serves gets the signal
        heirs = (pid for pid in tree[1:] if not lent.isdisjoint(procfs.sockets_of(pid)))
        found = processes.signals(next(heirs, tree[0])) or found
    if found is None or (config and config.drain_timeout == 0):
        return
    name = SIGNAL_NAMES.get(number, str(number))
    fix = f"have it accept no more on {name}, finish what it has and exit; or set stop_signal to "
    fix += "what it does that for (docs/servers.md)"
    if found.ignores(number):
        what, why = f"{name} is ignored", "it cannot be drained, and is killed after drain_timeout"
    elif found.dies_of(number):
        what, why = f"nothing handles {name}", "it ends at once, with the requests in hand"
    else:
        return
    yield Check.STOP_SIGNAL.found(what=what, why=why, fix=fix)


def _deaf(
    worker: WorkerStatus,
    config: ServiceConfig | None,
    lent: frozenset[int],
    alone: frozenset[int],
) -> Iterator[Finding]:
    """Find out why a worker does not seem to accept on its listeners."""
    if config and config.accept is Accept.DISPATCH:
        return  # it has no listener of its own
    seen_to_accept = config is None or isinstance(config.ready, Accepting)
    if worker.state == "ready" and seen_to_accept:
        return
    late = (
        worker.state == "starting"
        and worker.age > (config.ready_timeout if config else _READY_TIMEOUT) / 2
    )
    if late and readiness.accepting(worker.pid, lent):
        return
    wrapped = _wrapped(worker.pid)
    if wrapped and (late or _waits_elsewhere(worker.pid, lent, alone)):
        yield _behind_a_wrapper(worker.pid, wrapped)
    elif late:
        yield _not_ready(worker.pid, lent, alone)


def _behind_a_wrapper(pid: int, wrapped: int) -> Finding:
    return Check.WRAPPER.found(
        what=f"{processes.program(wrapped)} is a child of {processes.program(pid)}, and "
        "LISTEN_PID is the pid of the latter",
        why="most programs then ignore the sockets without a word",
        fix=_WAYS_OUT,
    )


def _not_ready(pid: int, lent: frozenset[int], alone: frozenset[int]) -> Finding:
    if alone:
        return Check.OWN_LISTENER.found(
            what="it listens on a port of its own, and on none of its listeners",
            why="clients of its listeners are answered by nobody",
            fix="tell the command to use the descriptor ({NAME}), or to take LISTEN_FDS",
        )
    return Check.NOT_READY.found(
        what="not ready after more than half of ready_timeout",
        why=f"the rollout is aborted at the end of it; {readiness.describe(pid, lent)}",
        fix="see what it waits for; if it only needs longer, raise ready_timeout; if it accepts "
        "in a way that cannot be seen, set ready",
    )


def _waits_elsewhere(pid: int, lent: frozenset[int], alone: frozenset[int]) -> bool:
    """Return whether a worker waits for connections only on sockets that it opened itself.

    Looks several times, because a thread that waits on a listener may be busy with a request.
    """
    elsewhere = False
    for _ in range(LOOKS if alone else 0):
        found = readiness.accepting(pid, lent | alone)
        if found & lent:
            return False
        elsewhere = elsewhere or bool(found)
        time.sleep(LOOK_DELAY)
    return elsewhere


def _wrapped(pid: int) -> int | None:
    """Return a descendant whose LISTEN_PID is the pid of another process, None without one."""
    for each in processes.successors(pid):
        env = processes.environ(each)
        if "LISTEN_FDS" in env and env.get("LISTEN_PID", str(each)) != str(each):
            return each
    return None


def _extra_port(alone: frozenset[int], sight: Sight) -> Iterator[Finding]:
    first, last = outgoing_ports() or (0, -1)
    # A port for outgoing connections was chosen by the kernel, so it differs in each worker.
    fixed = [sight.tcp[i] for i in sorted(alone) if not first <= sight.tcp[i].port <= last]
    if fixed:
        where = ", ".join(sorted(f"tcp://{one}" for one in fixed))
        yield Check.EXTRA_PORT.found(
            what=f"it also listens on {where}, which it opened itself",
            why="sockmgr does not hold that: at a reload the new worker cannot have it, or with "
            "SO_REUSEPORT both have it for a while, and the old one closes what waits in its queue",
            fix="make it a listener of the config, or of another service",
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
