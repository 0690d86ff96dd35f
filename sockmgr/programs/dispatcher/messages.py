"""What a manager and its dispatcher say to each other, on a SOCK_SEQPACKET pair.

A message is a JSON object, with descriptors beside it (SCM_RIGHTS). Both sides own what they get.
`service` is the name of a service, `lease` the number of a worker's lease, `key` what names a
listener, `channel` and `queue` are inodes: of the manager's end of a worker's channel, and of a
listening socket.

The manager says what is to be. A dispatcher that has it already changes nothing:

    hello       protocol, epoch, last   + pidfd of the manager
                The first message of each manager. The dispatcher answers `here`, and from then on
                all it says has this `epoch`. `last`: when this manager dies, end.
    service     service, policy, most   go by this policy; `most` connections for each worker
    attach      service, lease, name, keys, channel, new, left, told  + both ends, pidfd if known
                Own a worker's channel; `new`: nobody has passed anything on it. `left`: the worker
                is gone, and only what it has not taken goes to others.
                `told`: it knows what is told of a connection that another worker gave away.
    moves       service                 + the end of a move queue to take from, until that is shut
    process     service, lease          + pidfd: the worker's process, by which its end is seen
    abandon     service, lease          pass it nothing more, and others what it has not taken
    detach      service, lease          the worker is gone
    queue       service, key, queue     + a listening socket, used from the next `listen` on
    listen      service, queues         accept from these, and close all others
    feed        service, parts          each [weights, keys]: {lease: weight}, keys or null for all
    quiet       service, lease, number  say `quiet` when nothing waits for this worker
    forget      service                 close everything of this service
    settled                             what no manager has said since `hello` is not wanted
    connections service, key            + connections that another dispatcher could not pass on
    give        service, lease, key     + a connection for this worker alone, fed or not; an earlier
                                        dispatcher closes it
    ask         number, counts          answer; say the `counts` first, if they are wanted
    release                             accept no more, give back what is held, say `released`; go
                                        on if this manager dies, or another one says hello
    end                                 end

The dispatcher says what happens:

    here        protocol, version, pid
    takes       service, lease, channel the worker has answered for the first time
    misbehaves  service, lease, why     replace the worker
    quiet       service, lease, number
    emptied     channel                 nothing is left in the channel of a worker that is gone
    said        level, kind, fields     a record for the log
    counts      service, accepted, held, open: {lease: connections}
    held        service, key            + connections, after `release`
    released
    refused     why                     a message came in part: say all again, later
    answer      number
"""

from __future__ import annotations

import array
import json
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sockmgr.kernel import rights

CONNECTION, MANAGERS_END = 3, 4  # the descriptors that a dispatcher is started with
PROTOCOL = 2
LARGEST = 1 << 18  # bytes of a message
MOST_FDS = 253  # in a message: SCM_MAX_FD, unix(7)

# The kinds of records that code asks for (sockmgr.api.records.EventKind).
CONNECTIONS_WAIT = "connections wait"
TAKES_NONE = "worker takes no connections"
LOST = "worker lost connections"
MISBEHAVES = "worker misbehaves"

Message = dict[str, Any]


class Say(Protocol):
    """Has something logged: a method of Log by its name, the kind, and its fields."""

    def __call__(self, level: str, kind: str, /, **fields: object) -> None:
        """Log it."""


class Writers(Protocol):
    """The part of an event loop, asyncio's or the dispatcher's own, that waits for room."""

    def add_writer(self, fd: Any, callback: Callable[[], Any], /) -> Any:
        """Call back whenever there is room."""

    def remove_writer(self, fd: Any, /) -> Any:
        """Call back no more."""


class Outbox:
    """Messages that wait for room in a connection, in order, each with descriptors of its own."""

    def __init__(self, loop: Writers, connection: socket.socket) -> None:
        """Begin empty; the connection is borrowed."""
        self._loop, self._connection = loop, connection
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, data: bytes, fds: Sequence[int]) -> None:
        """Have a message sent as soon as there is room; own its descriptors."""
        self._waiting.append((data, fds))
        self._loop.add_writer(self._connection, self.flush)

    def flush(self) -> None:
        """Send what there is room for; drop what cannot be sent, since the other side is dead."""
        self._loop.remove_writer(self._connection)
        while self._waiting:
            data, fds = self._waiting[0]
            try:
                send(self._connection, data, fds)
            except BlockingIOError:
                self._loop.add_writer(self._connection, self.flush)
                return
            except OSError:
                pass
            self._waiting.popleft()
            rights.close_all(fds)

    def drop(self) -> None:
        """Send none of what waits."""
        self._loop.remove_writer(self._connection)
        for _, fds in self._waiting:
            rights.close_all(fds)
        self._waiting.clear()


class Incomplete(Exception):
    """A message came without all of its descriptors, since no more files could be opened."""


def write(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send a message, whole or not at all; the fds are borrowed. Raises OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Return the next message and its descriptors, the caller's; None at the end.

    Raises Incomplete, BlockingIOError if there is none now, and OSError.
    """
    room = socket.CMSG_SPACE(MOST_FDS * array.array("i").itemsize)
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, ancillary, got, _ = sock.recvmsg(LARGEST, room, flags)
    fds = rights.received(ancillary)
    if not data:
        return None
    if got & socket.MSG_CTRUNC:
        rights.close_all(fds)
        raise Incomplete("too many open files")
    return json.loads(data), fds
