"""A kernel that is pretended: processes, queues with half-open connections, failures, a clock.

It does what the manager orders, and remembers where each connection is. It decides nothing.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sockmgr.config.spec import Address, Listen, Spec
from sockmgr.errors import ListenError
from sockmgr.fleet.messages import WorkerId
from sockmgr.programs.dispatcher.channel import QUESTION, Passed, TakenBack
from sockmgr.programs.dispatcher.ledger import Report

MOST_QUEUES = 24  # of one listener; nothing here needs as many, so more are a leak


class Broken(AssertionError):
    """A promise is broken."""


class Holdings(dict[str, Any]):
    """Descriptors by name, of which none is ever changed."""


class Place(StrEnum):
    """Where a connection is."""

    HANDSHAKE = "in its handshake"
    QUEUED = "in a queue"
    DISPATCHER = "with the dispatcher"
    PASSED = "in a channel"
    ACCEPTED = "with a worker"
    KEPT = "with a worker, between two requests"
    MOVING = "in a move queue"
    ANSWERED = "answered"
    LOST = "lost, and may be"


class Life(StrEnum):
    """What a process is up to; `told`: it takes nothing more, and ends when all is answered."""

    BOOTING = "booting"
    SERVING = "serving"
    TOLD = "told to stop"
    DEAD = "dead"


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of a client, who is patient."""

    number: int
    address: Address
    place: Place = Place.HANDSHAKE
    queue: Queue | None = None
    holder: Process | None = None
    why_lost: str = ""
    is_kept: bool = False  # it has had an answer, and asks for nothing now

    def __str__(self) -> str:
        return f"connection {self.number}"

    def lose(self, why: str) -> None:
        """Let it be lost, for a reason that excuses it."""
        self.place, self.why_lost, self.queue, self.holder = Place.LOST, why, None, None

    def be_with(self, process: Process) -> None:
        """Be accepted, or taken over, by a worker."""
        self.place = Place.KEPT if self.is_kept else Place.ACCEPTED
        self.queue, self.holder = None, process
        (process.kept if self.is_kept else process.held).append(self)
        process.took = True


@dataclass(slots=True, eq=False)
class Queue:
    """One listening socket."""

    address: Address
    number: int
    inode: int = field(default_factory=itertools.count(1).__next__)
    half: list[Connection] = field(default_factory=list)
    waiting: list[Connection] = field(default_factory=list)
    is_closed: bool = False

    def close(self) -> None:
        """Be closed by the last who has it: the kernel resets what is in it."""
        self.is_closed = True
        if lost := [each for each in (*self.half, *self.waiting) if not each.why_lost]:
            raise Broken(f"{self} is closed, and {_names(lost)} are in it")

    def fileno(self) -> int:
        """Be a socket for those who only look."""
        return -1 if self.is_closed else self.inode

    def __str__(self) -> str:
        return f"queue {self.number} of {self.address}"


@dataclass(slots=True, eq=False)
class Group:
    """The sockets of one address, and the program that chooses among them."""

    address: Address
    queues: list[Queue]
    fed: dict[int, int]
    is_refusing: bool = False
    turn: int = 0

    @property
    def is_steered(self) -> bool:
        return self.address.traits.is_internet

    def choose(self) -> Queue:
        """Return where the next client goes: the fed queues take turns by their weights."""
        if not self.is_steered:
            return self.queues[0]
        self.turn += 1
        place = self.turn % sum(self.fed.values())
        for number, weight in self.fed.items():
            place -= weight
            if place < 0:
                return self.queues[number]
        raise Broken("nothing is fed")


@dataclass(slots=True, eq=False)
class Channel:
    """What a worker is passed connections by; manager, dispatcher and worker have both ends."""

    id: int
    is_new: bool = True
    is_told: bool = False
    items: list[Any] = field(default_factory=list)  # connections, and numbers of questions
    reports: list[Report] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    @property
    def untaken(self) -> int:
        return sum(QUESTION if isinstance(each, int) else 1 for each in self.items)

    @property
    def is_ready(self) -> bool:
        return bool(self.reports)

    def send(self, fds: list[Any], listeners: bytes) -> None:
        """Pass connections on; one more descriptor is what was told of the last of them."""
        told = fds[len(listeners)] if len(fds) > len(listeners) else -1
        for each, number in zip(fds, listeners, strict=False):
            each.place = Place.PASSED
            self.items.append((each, number, told))

    def ask(self, question: int) -> None:
        self.items.append(question)

    def receive(self) -> Report | None:
        return self.reports.pop(0) if self.reports else None

    def take_back(self) -> TakenBack | None:
        if not self.items:
            return None
        item = self.items.pop(0)
        if isinstance(item, int):
            return TakenBack()
        item[0].place = Place.DISPATCHER
        return TakenBack([Passed(*item)])

    def report(self) -> None:
        self.reports.append(Report(*self.counts))

    def close(self) -> None:
        """Close a duplicate; who else has the channel is looked at by the promises."""


@dataclass(slots=True, eq=False)
class MoveQueue:
    """A pair of sockets by which workers give each other connections: docs/moves.md."""

    number: int
    items: list[Connection] = field(default_factory=list)
    is_shut: bool = False
    ended_in: int = -1  # after how many deaths of managers it was ended

    def __str__(self) -> str:
        return f"move queue {self.number}"


@dataclass(slots=True, eq=False)
class End:
    """One end of a move queue, which manager, dispatcher and store have by its number."""

    queue: MoveQueue
    number: int

    def fileno(self) -> int:
        return self.number

    @property
    def is_ready(self) -> bool:
        """Whether there is something to read."""
        return bool(self.queue.items) or self.queue.is_shut

    def shutdown(self, how: int) -> None:
        del how
        self.queue.is_shut = True

    def recvmsg(self, *_: int) -> tuple[bytes, list[Connection], int, None]:
        """Take what was given first; nothing is the end of it."""
        if not self.queue.items:
            return b"", [], 0, None
        found = self.queue.items.pop(0)
        found.place = Place.DISPATCHER
        return b"told", [found], 0, None

    def setblocking(self, flag: bool) -> None: ...

    def close(self) -> None:
        """Close a duplicate; who else has the queue is looked at by the promises."""


@dataclass(slots=True, eq=False)
class Process:
    """A worker's process. It has its queues, or one channel, and what it has accepted."""

    pid: int
    service: str
    id: WorkerId
    spec: Spec
    lease: int
    queues: list[Queue]
    channel: Channel | None = None
    life: Life = Life.BOOTING
    held: list[Connection] = field(default_factory=list)
    kept: list[Connection] = field(default_factory=list)  # those that are between two requests
    moves: MoveQueue | None = None
    hung: bool = False
    status: int = 0
    took: bool = False

    @property
    def started(self) -> int:
        return self.pid

    @property
    def name(self) -> str:
        return f"{self.service}@{self.id}"

    def __str__(self) -> str:
        return f"{self.service}@{self.id} (pid {self.pid})"

    @property
    def takes(self) -> bool:
        """Whether it takes connections."""
        return self.life is Life.SERVING and not self.hung

    def accept(self) -> Connection | None:
        """Take the next connection that waits for it; None if none does."""
        if self.channel is not None:
            return self._take()
        for queue in self.queues:
            if queue.waiting:
                found = queue.waiting.pop(0)
                found.be_with(self)
                return found
        return None

    def _take(self) -> Connection | None:
        channel = self.channel
        assert channel
        while channel.items:
            item = channel.items.pop(0)
            if isinstance(item, int):
                channel.counts[0] = item
                channel.report()
                continue
            found: Connection = item[0]
            channel.counts[1] += 1
            channel.report()
            found.be_with(self)
            return found
        return None

    @property
    def may_take_over(self) -> bool:
        """Whether a connection that another one gave away waits for it; else the dispatcher's."""
        return bool(self.moves and self.moves.items and self.channel is None)

    def take_over(self) -> Connection:
        """Take over a connection that another worker gave away: sockmgr.worker.moves."""
        assert self.moves
        found = self.moves.items.pop(0)
        found.be_with(self)
        return found

    def be_told(self) -> None:
        """Begin to stop: what waits to be taken over is taken, as nobody else might."""
        self.life = Life.TOLD
        while self.may_take_over and not self.hung:
            self.take_over()

    def part(self) -> Connection:
        """Give the connection that it has kept longest to another worker, or close it."""
        found = self.kept.pop(0)
        found.holder = None
        if self.moves and not self.moves.is_shut:
            found.place = Place.MOVING
            self.moves.items.append(found)
        else:
            found.place = Place.ANSWERED
        self._count_closed()
        return found

    def keep(self) -> Connection:
        """Answer the connection that it has had longest, and keep it."""
        found = self.held.pop(0)
        found.is_kept = True
        found.be_with(self)
        return found

    def ask(self) -> Connection:
        """Have one that it has kept ask for something again."""
        found = self.kept.pop(0)
        found.is_kept = False
        found.be_with(self)
        return found

    def take_all(self) -> None:
        """Take what was passed to it: a worker that is told to stop does so first."""
        while self.channel and self.channel.items:
            self._take()

    def answer(self) -> Connection:
        """Answer the connection that it has had longest, and close it."""
        found = self.held.pop(0)
        found.place, found.holder = Place.ANSWERED, None
        self._count_closed()
        return found

    def _count_closed(self) -> None:
        if self.channel:
            self.channel.counts[2] += 1
            self.channel.report()


class Kernel:
    """All of it. `short` are failures to come, by what fails."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.groups: dict[Address, Group] = {}
        self.processes: dict[int, Process] = {}
        self.connections: list[Connection] = []  # that are neither answered nor lost
        self.short: dict[str, int] = {}
        self.made = self.last_pid = self.last_channel = self.last_moves = 0
        self.ends: dict[int, End] = {}  # of move queues, by number

    def fails(self, what: str) -> bool:
        """Tell whether a call of this kind fails now."""
        if self.short.get(what, 0) < 1:
            return False
        self.short[what] -= 1
        return True

    def start(self, service: str, id: WorkerId, spec: Spec, lease: int) -> Process:
        """Start a process, without its sockets."""
        self.last_pid += 1
        made = Process(self.last_pid, service, id, spec, lease, [])
        self.processes[made.pid] = made
        return made

    def channel(self) -> Channel:
        self.last_channel += 1
        return Channel(self.last_channel)

    def move_queue(self) -> tuple[End, End]:
        """Make both ends of a move queue: to give, and to take from."""
        self.last_moves += 2
        queue = MoveQueue(self.last_moves)
        pair = End(queue, self.last_moves), End(queue, self.last_moves + 1)
        self.ends |= {end.number: end for end in pair}
        return pair

    def end(self, process: Process, status: int, excuse: str) -> None:
        """Let a process be dead: what it has accepted ends with it."""
        mine = [*process.held, *process.kept]
        if mine and not excuse:
            raise Broken(f"{process} ends with {_names(mine)} in its hands")
        for each in mine:
            each.lose(excuse)
        process.held.clear()
        process.kept.clear()
        process.life, process.status = Life.DEAD, status

    def connect(self, address: Address, *, slow: bool) -> Connection | None:
        """Have a client come; None if it is refused. A `slow` one leaves its handshake open."""
        group = self.groups.get(address)
        if group is None or group.is_refusing:
            return None
        self.made += 1
        found = Connection(self.made, address)
        queue = found.queue = group.choose()
        queue.half.append(found)
        self.connections.append(found)
        if not (slow and group.is_steered):
            self.complete(found)
        return found

    def complete(self, connection: Connection) -> None:
        """End a handshake: the connection waits in the queue where it began."""
        queue = connection.queue
        assert queue
        queue.half.remove(connection)
        queue.waiting.append(connection)
        connection.place = Place.QUEUED

    def forget_ended(self) -> None:
        ended = (Place.ANSWERED, Place.LOST)
        self.connections = [each for each in self.connections if each.place not in ended]

    def living(self) -> list[Process]:
        return [each for each in self.processes.values() if each.life is not Life.DEAD]


class Listener:
    """What a manager has of a group: the interface of sockmgr.manager.listeners.listener."""

    why_overlap = ""
    has_handshakes = True
    is_anew = False
    is_damaged = False
    owns_path = False

    def __init__(self, kernel: Kernel, listen: Listen, group: Group) -> None:
        self._kernel, self.listen, self.group = kernel, listen, group
        self.systemds: set[int] = set()
        self.is_ending = False
        self.is_steered = group.is_steered
        self.has_handshakes = group.is_steered
        self.why_overlap = "" if group.is_steered else "the kernel steers TCP only"
        self.cutover = "steered" if group.is_steered else "overlap"

    @property
    def queues(self) -> tuple[Queue, ...]:
        return tuple(self.group.queues)

    @property
    def inodes(self) -> tuple[int, ...]:
        return tuple(queue.inode for queue in self.group.queues)

    @property
    def fed(self) -> Mapping[int, int]:
        return self.group.fed

    @property
    def is_refusing(self) -> bool:
        return self.group.is_refusing

    def lease(self, number: int) -> int:
        """Have as many queues as that needs."""
        if not self.is_steered:
            return 0
        queues = self.group.queues
        while len(queues) <= number:
            if self._kernel.fails("bind"):
                raise ListenError("too many open files")
            if len(queues) >= MOST_QUEUES:
                raise Broken(f"P9: {self.listen.address} has {MOST_QUEUES} queues")
            queues.append(Queue(self.listen.address, len(queues)))
        return number

    def queue(self, number: int) -> Queue:
        return self.group.queues[number if self.is_steered else 0]

    def feed(self, weights: Mapping[int, int]) -> None:
        if not (self.is_steered and weights):
            return
        self.lease(max(weights))
        if self._kernel.fails("steer"):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        self.group.fed = {n: w for n, w in weights.items() if w > 0}

    def refuse(self) -> None:
        self.group.is_refusing = True

    def admit(self) -> None:
        self.group.is_refusing, self.is_ending = False, False

    def end(self, held: Collection[int] = ()) -> None:
        del held
        self.is_ending = self.group.is_refusing = True

    def is_left_to_others(self, number: int) -> bool:
        del number
        return False

    def unfinished(self, lease: int) -> tuple[Queue, ...]:
        if self.is_refusing:
            return self.queues
        if self.is_ending and not self.has_handshakes:
            return ()
        return self.queues[lease : lease + 1] if self.is_steered else ()

    def renew(self, number: int) -> None:
        """Put a new queue in the place of one that nobody has: what is in it would be reset."""
        if not self.is_steered or number >= len(self.queues) or self.is_ending:
            return
        queue = self.group.queues[number]
        if queue.waiting:
            return
        queue.close()
        self.group.queues[number] = Queue(self.listen.address, number)

    def apply(self, listen: Listen) -> None:
        self.listen = listen

    def take_peak(self) -> int:
        return 0


def _names(connections: Collection[Connection]) -> str:
    return ", ".join(map(str, connections))
