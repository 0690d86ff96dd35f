"""Pools of SO_REUSEPORT queues on one address, and the program that chooses among them.

A Pool owns its sockets and closes none before close(): closing one resets what it has queued and
renumbers the others. The program is replaced whole, so a connection sees the old choice or the new
one, never a mixture. Classic BPF, which needs no privilege, gives all to one queue or chooses at
random; queues take turns by eBPF where that is permitted. It decides nothing: whom to feed is what
it is told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from sockmgr.errors import ListenError
from sockmgr.kernel import free_bind
from sockmgr.kernel.steering import classic, places

if TYPE_CHECKING:
    from sockmgr.kernel.steering.round_robin import Refusal, RoundRobin

# What a new member takes over from the first one, so that workers see no difference. Without
# SO_REUSEADDR, connections accepted before SO_REUSEPORT was set would be in its way.
_COMMON = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
)
_LOCK_FILTER = 44  # SO_LOCK_FILTER, asm-generic/socket.h
_ROOM = 256  # for queues in a map of 8 bytes each; one that gets too small is replaced
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}


class Choice(StrEnum):
    """How it is decided which of the queues that are fed gets a connection."""

    ONE = "one queue"
    ROUND_ROBIN = "round robin (eBPF)"
    RANDOM = "random (classic BPF)"


class Pool:
    """The queues of one address. Number n is a place in this pool, not the kernel's index."""

    def __init__(
        self,
        queues: Sequence[socket.socket],
        *,
        fed: Mapping[int, int],
        order: Sequence[int] | None = None,
    ) -> None:
        """Own `queues`, which are one group already, and feed `fed`.

        `order` are their numbers in the kernel's order, by default as they stand. Raises OSError
        when the kernel does not let us steer; the queues stay the caller's then.
        """
        self._queues = list(queues)
        # The kernel's index -> our number.
        self._order = list(range(len(queues)) if order is None else order)
        self._located = True  # as far as we know
        self._fed: dict[int, int] = {}
        self._choice = Choice.ONE
        self._exact: RoundRobin | None = None  # once there are several to choose from
        self._refusal: Refusal | None = None
        try:
            self.feed(fed)
        except BaseException:
            self._release()
            raise

    @classmethod
    def join(cls, sock: socket.socket, *, backlog: int) -> Pool:
        """Make a pool of `sock`, which serves already, and of one new queue beside it.

        Owns `sock` from then on. Raises ListenError, with `sock` as it was, if that cannot be.
        """
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        twin: socket.socket | None = None
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            twin = _bind_twin(sock, quiet=True)
            if twin.type == socket.SOCK_STREAM:
                twin.listen(backlog)
            # A socket without SO_REUSEPORT at its bind can carry a program only once it has
            # company; until the program is there, the twin drops what the kernel gives to it.
            pool = cls([sock, twin], fed={0: 1})
            classic.remove_filter(twin)
        except OSError as error:
            if twin is not None:
                twin.close()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, before)
            raise _cannot_join(sock, error) from error
        return pool

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def queues(self) -> tuple[socket.socket, ...]:
        """All queues, borrowed, by number."""
        return tuple(self._queues)

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the queues in the kernel's order, without those that are shut down."""
        return tuple(self._order)

    @property
    def fed(self) -> Mapping[int, int]:
        """The weights of the queues that get connections now."""
        return dict(self._fed)

    @property
    def choice(self) -> Choice:
        """How one of the queues that are fed is chosen now."""
        return self._choice

    @property
    def refusal(self) -> Refusal | None:
        """Why the choice is random; None if it is not."""
        return self._refusal

    def grow(self, *, backlog: int) -> None:
        """Add one queue that gets no connection until it is fed. None may be shut down now."""
        # The program in effect never returns an index that did not exist when it was attached,
        # so the new member may listen at once.
        twin = _bind_twin(self._queues[0])
        try:
            if twin.type == socket.SOCK_STREAM:
                twin.listen(backlog)
        except BaseException:
            twin.close()
            raise
        self._order.append(len(self._queues))
        self._queues.append(twin)

    def feed(self, weights: Mapping[int, int]) -> None:
        """Give new connections to these queues only, in one step, in proportion to the weights."""
        fed = {number: weight for number, weight in weights.items() if weight > 0}
        if not fed or not fed.keys() <= set(range(len(self._queues))):
            raise ValueError(f"cannot feed {dict(weights)} of {len(self._queues)} queues")
        before, self._fed = self._fed, fed
        try:
            self._attach()
        except BaseException:
            self._fed = before
            raise

    def steer_again(self) -> None:
        """Feed the same queues, in place of whatever somebody else has attached to the group."""
        self._attach()

    def revive(self, down: Sequence[int], *, backlog: int) -> None:
        """Make the queues `down`, which somebody shut down, listen again and steer as before.

        Raises OSError if one cannot listen, because another socket took the address; the others
        do then, and it may be tried again.
        """
        for number in down:
            self._leave(number)
        self._attach()
        failure: OSError | None = None
        for number in down:
            try:
                self._queues[number].listen(backlog)
            except OSError as error:
                failure = error
                continue
            self._order.append(number)
            self._attach()
        # Several may have gone in another order, or one while another joined.
        self.locate()
        if failure is not None:
            raise failure

    def renew(self, number: int, *, backlog: int) -> None:
        """Put a new queue in the place of this one, which gets no connections and holds none.

        Whoever else has a descriptor of the old socket has one that does not listen any more.
        Raises OSError, with the old queue in its place, if there can be no new one.
        """
        old = self._queues[number]
        # With a socket of the same address that forbids it nobody could be bound beside it.
        old.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        others = (self._queues[n] for n in self._order if n != number)
        twin = _bind_twin(next(others, old))
        try:
            twin.listen(backlog)
        except BaseException:
            twin.close()
            raise
        # The newest member stands last, and the last one moves into the place that becomes free:
        # so no other changes its place, and no connection is misled meanwhile.
        with contextlib.suppress(OSError):  # a worker may have shut it down already
            old.shutdown(socket.SHUT_RDWR)
        if number not in self._order:
            self._order.append(number)
        self._queues[number] = twin
        old.close()

    def _leave(self, number: int) -> None:
        """Do as shutdown(2) does: the last member moves into the place that became free."""
        if number not in self._order:
            return
        place = self._order.index(number)
        last = self._order.pop()
        if place < len(self._order):
            self._order[place] = last

    def locate(self) -> bool:
        """Learn the kernel's order by asking; say whether every place was found.

        For each place one packet of ours is steered there, and every queue drops it: no worker
        sees a connection, and the queue whose drop counter rises is the one in that place. All
        else is steered as before. Some kernels let only root attach the filter that drops (EPERM),
        and no packet reaches an address that is not there now (EADDRNOTAVAIL).
        """
        if not self._fed.keys() & set(self._order):
            return False
        members = [self._queues[number] for number in self._order]
        found: list[int] = []
        for place in range(len(members)):
            try:
                hit = places.find(members, place, self._program())
            except OSError:
                break
            if hit is None:
                break
            found.append(self._order[hit])
        self._located = sorted(found) == sorted(self._order)
        if self._located:
            self._order = found
        self._attach()
        return self._located

    def close(self) -> None:
        """Close every queue: this address is no longer wanted."""
        self._release()
        for queue in self._queues:
            queue.close()

    def _release(self) -> None:
        if self._exact is not None:
            self._exact.close()
            self._exact = None

    def _attach(self) -> None:
        fed = {number: weight for number, weight in self._fed.items() if number in self._order}
        if not fed:
            return  # none that is fed can get anything: the old program does as well as any
        alone = len(fed) == 1
        # For one queue classic BPF does as well, if we know its place.
        refusal = None if alone and self._located else self._take_turns(fed)
        if refusal is not None or (alone and self._located):
            self._steer_classic()
        self._refusal = None if alone else refusal
        self._choice = Choice.ONE if alone else Choice.RANDOM if refusal else Choice.ROUND_ROBIN

    def _steer_classic(self) -> None:
        classic.steer(self._member(), self._program())

    def _member(self) -> socket.socket:
        """Return a queue by which a program can be attached to the group; any stands for it.

        A worker may lock its own queue for ever (SO_LOCK_FILTER, socket(7), needs no privilege).
        When all are locked, one more queue joins, which no worker has had.
        """
        for number in self._order:
            if not self._queues[number].getsockopt(socket.SOL_SOCKET, _LOCK_FILTER):
                return self._queues[number]
        self.grow(backlog=socket.SOMAXCONN)
        return self._queues[-1]

    def _take_turns(self, fed: Mapping[int, int]) -> Refusal | None:
        """Let these queues take turns, or return why that cannot be."""
        from sockmgr.kernel.steering import round_robin  # noqa: PLC0415 - many never need it

        refusal = round_robin.refusal()
        if refusal is not None:
            return refusal
        try:
            if self._exact is None or max(fed) >= self._exact.room:
                self._release()
                self._exact = round_robin.RoundRobin(room=max(_ROOM, 2 * len(self._queues)))
            self._exact.steer(self._queues, fed, self._make_way, self._member())
        except OSError as error:
            return round_robin.Refusal.of(error)
        return None

    def _make_way(self) -> None:
        """Replace a program that has our queues in a map of its own, and let it go.

        A manager before us left it, or it is ours and has the smaller map.
        """
        self._steer_classic()
        settle()

    def _program(self) -> classic.Program:
        """Return the choice among those that are fed. Queues out of the group have no part."""
        place = {number: index for index, number in enumerate(self._order)}
        return classic.choice(
            {place[number]: weight for number, weight in self._fed.items() if number in place}
        )


def settle() -> None:
    """Return when no processor runs a program any more that was replaced before. Blocks ~10 ms.

    membarrier(2), MEMBARRIER_CMD_GLOBAL, is a wait for an RCU grace period; where there is none,
    50 ms are far longer than one.
    """
    import ctypes  # noqa: PLC0415 - 1 MB that a manager without steered listeners does not need

    number = _MEMBARRIER.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, 1, 0, 0) != 0:
        time.sleep(0.05)


# --- Members --------------------------------------------------------------------------------------


def _bind_twin(first: socket.socket, *, quiet: bool = False) -> socket.socket:
    """Return a socket bound to the address of `first` with its options, not listening yet."""
    twin = socket.socket(first.family, first.type)
    try:
        for level, option in _COMMON:
            twin.setsockopt(level, option, first.getsockopt(level, option))
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.type == socket.SOCK_STREAM:
            nodelay = first.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        if first.family == socket.AF_INET6:
            v6only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            twin.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        owner = os.fstat(first.fileno()).st_uid
        if owner != os.fstat(twin.fileno()).st_uid:
            # A group has one uid. The socket's uid follows fchown(2), which root may do.
            os.fchown(twin.fileno(), owner, -1)
        if quiet:
            classic.put_filter(twin, classic.DROP)
        free_bind.allow(twin)  # the address may have gone since the first was bound
        os.set_blocking(twin.fileno(), os.get_blocking(first.fileno()))
        twin.bind(first.getsockname())
    except BaseException:
        twin.close()
        raise
    return twin


def _cannot_join(sock: socket.socket, error: OSError) -> ListenError:
    owner = os.fstat(sock.fileno()).st_uid
    if error.errno == errno.EPERM or owner != os.geteuid():
        what = f"the socket belongs to uid {owner} and this process is uid {os.geteuid()}"
    elif error.errno == errno.EADDRINUSE:
        what = "no second socket can be bound to its address"
    else:
        what = f"the kernel does not let us steer ({error.strerror})"
    return ListenError(
        what, do="ReusePort=yes and the same ListenStream= twice in the .socket unit mends it"
    )


def twin(first: socket.socket, *, backlog: int) -> socket.socket:
    """Return a socket that listens at the address of `first`, which need not listen any more."""
    sock = _bind_twin(first)
    if sock.type == socket.SOCK_STREAM:
        sock.listen(backlog)
    return sock


def cannot_grow(address: str, size: int, error: OSError) -> ListenError:
    """Return what to tell when a pool of this size cannot have one more queue."""
    do = "raise LimitNOFILE= if file descriptors ran out; reload again otherwise"
    if isinstance(error, PermissionError):  # the others belong to another user
        do = "repeat its ListenStream= once more in the .socket unit, or run as root"
    return ListenError(
        f"cannot open another queue on {address}: {(error.strerror or '').lower()}",
        means=f"the {size} queues it has go on as before",
        do=do,
    )
