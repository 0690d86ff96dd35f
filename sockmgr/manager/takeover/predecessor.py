"""What a predecessor left: descriptors by name, and the state that says what they belong to.

Owns the descriptors until they are taken. Looks at processes, and signals only workers that no
service has taken.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from sockmgr.config.spec import Spec
from sockmgr.fleet import snapshot
from sockmgr.fleet.messages import State, WorkerId
from sockmgr.fleet.snapshot import ProcessSnapshot, ServiceSnapshot, Snapshot, WorkerSnapshot
from sockmgr.kernel import private, process, queues, rights, survivors
from sockmgr.kernel.process import Process
from sockmgr.kernel.procfs import start_time
from sockmgr.launch.additions import LAUNCHER, UVICORN_LAUNCHER
from sockmgr.log import Log
from sockmgr.manager.dispatch import dispatcher
from sockmgr.manager.takeover import unlabelled
from sockmgr.manager.takeover.state import FOUND, NOTIFY, RENEWED, STATE, StateMemory, boot_id
from sockmgr.manager.workers.survivor import CHANNEL, CHANNEL_OF_WORKER, OUTPUTS, PIDFD, Survivor

log = Log("sockmgr")

_WORKER = re.compile(r"(.+)@(\d+)\.(\d+)(?:/.+)?", re.ASCII)
_ROLES = (PIDFD, *OUTPUTS, CHANNEL, CHANNEL_OF_WORKER)
_ANY_LAUNCHER = re.compile(r"/.*/sockmgr/(?:programs/)?(launch_[a-z]+\.py)")
_OURS = {Path(each).name: each for each in (LAUNCHER, UVICORN_LAUNCHER)}


@dataclass(slots=True)
class Predecessor:
    """What a predecessor left. Owns `descriptors` until they are taken."""

    descriptors: dict[str, list[int]]
    state: Snapshot | None = None
    flaw: str = ""
    serial: int = 0
    names: dict[str, object] = field(default_factory=dict)  # what the store holds, and what it is
    _memfds: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, descriptors: dict[str, list[int]]) -> Predecessor:
        """Read the state that is among these descriptors, if there is one."""
        # A plain name is that of a socket unit, which holds its sockets itself.
        names = {n: _identity(n, fds) for n, fds in descriptors.items() if set(n) & set("@#")}
        predecessor = cls(descriptors, names=names, _memfds=descriptors.get(STATE, []))
        written = [_read(fd) for fd in predecessor._memfds]
        try:
            found = snapshot.latest(written)
        except snapshot.SnapshotError as error:
            predecessor.flaw = error.what
            return predecessor
        # After a reboot the pids and inodes of the state belong to others.
        if found is None or found.state.boot_id != boot_id():
            predecessor.flaw = "there is none of this boot" if names else ""
            return predecessor
        predecessor.serial = found.serial
        there = {os.fstat(fd).st_ino for fds in descriptors.values() for fd in fds}
        missing = {n for listener in found.state.listeners for n in listener.inodes} - there
        # Records whose sockets are gone describe listeners that nobody can go on with. The sockets
        # that are there keep their clients all the same: their names say which listener they are.
        if missing:
            predecessor.flaw = f"{len(missing)} of the sockets that the state tells of are missing"
        elif _lacks_listeners(found.state):
            predecessor.flaw = "it lacks listeners that its own config or services have"
        else:
            predecessor.state = _with_our_launcher(found.state)
        return predecessor

    def memory(self, copy: Path | None) -> StateMemory:
        """Return the memory that the state is written to from now on; the caller owns it."""
        return StateMemory(self.descriptors.pop(STATE, []), self.serial, copy)

    def take_notify(self, path: Path) -> socket.socket | None:
        """Return the notify socket, if there is one that `path` leads to; the caller owns it."""
        fds = self.descriptors.pop(NOTIFY, [])
        if fds:
            left = socket.socket(fileno=fds[0])
            # Workers find the socket by its path: one that has lost its path hears no new worker.
            if left.getsockname() == str(path) and path.is_socket():
                left.set_inheritable(False)
                return left
            left.close()
        self.names.pop(NOTIFY, None)  # there will be another
        return None

    def take_sockets(self) -> dict[str, list[socket.socket]]:
        """Return all sockets by name; the caller owns them from now on."""
        found: dict[str, list[socket.socket]] = {}
        for name in [name for name in self.descriptors if "@" not in name]:
            for fd in self.descriptors.pop(name):
                # Descriptors that came by execve(2) are inheritable; no worker may inherit them.
                sock = socket.socket(fileno=fd)
                sock.set_inheritable(False)
                found.setdefault(name, []).append(sock)
        return found

    @property
    def own_queues(self) -> Counter[str]:
        """How many sockets of each listener, not taken yet, no socket unit holds."""
        names = {name.removesuffix(RENEWED) for name in self.descriptors if "#" in name}
        return Counter(name.partition("#")[0] for name in names)

    def take_queues(self) -> dict[str, list[socket.socket]]:
        """Return all sockets by listener and in the order of their leases, as far as names tell.

        What a socket unit passes comes first, as it did when the first manager was started.
        """
        found: dict[str, list[socket.socket]] = {}
        named = self.take_sockets()
        for name in [name for name in named if name.endswith(RENEWED)]:
            _put(named, name.removesuffix(RENEWED), named.pop(name))
        for name in sorted(named, key=_number):
            found.setdefault(name.partition("#")[0], []).extend(named[name])
        # O_NONBLOCK is shared by all who have the socket. A worker that runs may have set it, and
        # would hang in accept(2) whenever another worker was faster, were it cleared here.
        if not (self.names or any(map(_WORKER.fullmatch, self.descriptors))):
            for sock in (sock for socks in found.values() for sock in socks):
                os.set_blocking(sock.fileno(), True)
        return found

    def take_strangers(self, service: str) -> dict[WorkerId, Survivor]:
        """Return the workers of a service by their names only, when no state tells of them."""
        found: dict[WorkerId, Survivor] = {}
        named = [match for match in map(_WORKER.fullmatch, self.descriptors) if match]
        ids = [WorkerId(int(one[2]), int(one[3])) for one in named if one[1] == service]
        for id in dict.fromkeys(ids):
            fds = self._take_worker(f"{service}@{id}")
            if pid := process.pid_of(fds[PIDFD]) if PIDFD in fds else 0:
                was = ProcessSnapshot(pid=pid, started=start_time(pid), ready=True)
                found[id] = _owned(was, fds, since=_instant(was.started))
            else:
                rights.close_all(fds.values())
        return found

    def take_survivors(self, service: ServiceSnapshot) -> dict[WorkerId, Survivor]:
        """Return the workers of one service whose processes can be found, dead ones too."""
        found: dict[WorkerId, Survivor] = {}
        for generation in service.generations:
            for worker in generation.workers:
                id = WorkerId(generation.number, worker.slot)
                channel = worker.process.channel if worker.process else ()
                fds = self._take_worker(f"{service.name}@{id}", channel)
                if survivor := _survivor(worker, fds):
                    found[id] = survivor
        return found

    def _take_worker(self, name: str, channel: Sequence[int] = ()) -> dict[str, int]:
        """Return the descriptors of a worker by their roles; the caller owns them."""
        found = unlabelled.roles(self.descriptors.pop(name, []), channel)
        for role in _ROLES:
            for fd in self.descriptors.pop(f"{name}/{role}", []):
                if role in found:
                    os.close(found[role])
                found[role] = fd
        return found

    def close(self) -> None:
        """Close what was not taken, and stop each worker that is of no service any more."""
        for name, fds in self.descriptors.items():
            log.warning("descriptor left by another manager closed", name=name, number=len(fds))
            for fd in fds:
                # Nothing else would ever stop a worker whose service is in no config any more.
                if _WORKER.fullmatch(name) and process.pid_of(fd):
                    signal.pidfd_send_signal(fd, signal.SIGTERM)
                os.close(fd)
        self.descriptors.clear()


def recovered(copy: Path) -> dict[str, list[int]]:
    """Return what the processes of a dead manager still hold, by name, if the copy tells of any.

    Raises ListenError if we may not look into those processes. The caller owns the descriptors.
    """
    if (fd := _open_copy(copy)) is None:
        return {}
    found: dict[str, list[int]] = {}
    try:
        state = snapshot.decode(_read(fd))
        found = _taken_back(state) if state.boot_id == boot_id() else {}
    except snapshot.SnapshotError as error:
        log.warning("state not used", path=copy, because=error.what)
    if not found:
        os.close(fd)
        return {}
    return found | {STATE: [fd]}


def _taken_back(state: Snapshot) -> dict[str, list[int]]:
    """Return pidfds, what workers have of the queues, and all that the dispatcher has."""
    found: dict[str, list[int]] = {}
    names = {n: f"{each.listen.name}#{i}" for each in state.listeners
             for i, n in enumerate(each.inodes)}  # fmt: skip
    names |= {number: name for name, number in state.moves.items()}
    channels: dict[int, str] = {}
    for service in state.services:
        for id, survivor, ends in _living(service):
            name = f"{service.name}@{id}"
            found[f"{name}/{PIDFD}"] = [survivor.pidfd]
            channels |= zip(
                ends, (f"{name}/{CHANNEL}", f"{name}/{CHANNEL_OF_WORKER}"), strict=False
            )
            _take_sockets(survivor.pid, survivor.pidfd, names, found)
    was = state.dispatcher
    if was and (pidfd := process.open_pidfd(was.pid, was.started)) is not None:
        found[dispatcher.PIDFD] = [pidfd]
        names |= {**channels, was.connection: dispatcher.CONNECTION}
        _take_sockets(was.pid, pidfd, names, found)
    return found


def _take_sockets(
    pid: int, pidfd: int, names: Mapping[int, str], found: dict[str, list[int]]
) -> None:
    """Add what a process has of the sockets that are missing; `names` are theirs by inode.

    Workers of one generation hold the same sockets, and one copy of each is enough.
    """
    wanted = [n for n, name in names.items() if name not in found]
    taken = survivors.take_back(pid, pidfd, wanted)
    found |= {names[inode]: [sock] for inode, sock in taken.items()}


def _open_copy(copy: Path) -> int | None:
    try:
        return private.open_file(copy)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link (ELOOP), or a file that others may write
        log.warning("state not used", path=copy, because=error.strerror)
        return None


def _living(service: ServiceSnapshot) -> Iterator[tuple[WorkerId, Process, Sequence[int]]]:
    """Return each worker that can be found, and the inodes of the ends of its channel."""
    for generation in service.generations:
        for worker in generation.workers:
            if (told := worker.process) and (survivor := _survivor(worker, {})):
                yield WorkerId(generation.number, worker.slot), survivor.process, told.channel


def check(fd: int) -> str:
    """Return in a line what the state in `fd`, a borrowed memfd, has; may raise SnapshotError."""
    state = snapshot.decode(_read(fd))
    workers = [w for s in state.services for g in s.generations for w in g.workers]
    return f"services: {len(state.services)}, workers: {len(workers)}; all can be taken over"


def _lacks_listeners(state: Snapshot) -> bool:
    known = {listener.listen.address for listener in state.listeners}
    specs = [each.spec for service in state.services for each in service.generations]
    listens = (state.config.listen, *(spec.listen for spec in specs))
    return any(listen.address not in known for own in listens for listen in own)


def _with_our_launcher(state: Snapshot) -> Snapshot:
    """Name our launchers in all specs: those of another version may be gone."""
    return replace(
        state,
        services=tuple(
            replace(
                service,
                generations=tuple(
                    replace(each, spec=_launched(each.spec)) for each in service.generations
                ),
                pending=service.pending and _launched(service.pending),
            )
            for service in state.services
        ),
    )


def _launched(spec: Spec) -> Spec:
    found = ((word, _ANY_LAUNCHER.fullmatch(word)) for word in spec.argv)
    return replace(
        spec, argv=tuple(_OURS.get(ours[1], word) if ours else word for word, ours in found)
    )


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _identity(name: str, fds: Sequence[int]) -> object:
    """Return what the store holds there: the queue of that number may be another one by now."""
    return os.fstat(fds[0]).st_ino if "#" in name else FOUND


def _survivor(worker: WorkerSnapshot, fds: Mapping[str, int]) -> Survivor | None:
    told = worker.process
    if told is None:
        return None
    if PIDFD not in fds:  # it did not get into the store
        pidfd = process.open_pidfd(told.pid, told.started)
        if pidfd is None:
            rights.close_all(fds.values())
            return None
        fds = {**fds, PIDFD: pidfd}
    # One that was starting may have become ready while nobody looked: it is looked at again.
    ready = told.ready or worker.state is not State.STARTING
    return _owned(replace(told, ready=ready), fds, since=worker.since)


def _instant(started: int) -> float:
    """Return when a process began, by our clock; proc_pid_stat(5) has it in ticks of another clock.

    That one goes on while the machine is suspended (clock_gettime(2), CLOCK_BOOTTIME).
    """
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return started / os.sysconf("SC_CLK_TCK") - suspended


def _owned(was: ProcessSnapshot, fds: Mapping[str, int], *, since: float) -> Survivor:
    for fd in fds.values():
        os.set_inheritable(fd, False)
    ends = [fds[role] for role in (CHANNEL, CHANNEL_OF_WORKER) if role in fds]
    if len(ends) == 1:  # one end alone is of no use: what waits in it could not be taken back
        rights.close_all(ends)
    return Survivor(
        process=Process(was.pid, pidfd=fds[PIDFD]),
        outputs=tuple(fds.get(role, -1) for role in OUTPUTS),
        since=since,
        was=was,
        channel=(ends[0], ends[1]) if len(ends) == 2 else None,
    )


def _put(named: dict[str, list[socket.socket]], name: str, renewed: list[socket.socket]) -> None:
    """Have one queue under a name: that which listens, as a queue is shut down when replaced."""
    wins = name not in named or queues.is_listening(renewed[0])
    for sock in named.get(name, []) if wins else renewed:
        sock.close()
    if wins:
        named[name] = renewed


def _number(name: str) -> int:
    return int(name.partition("#")[2] or -1)
