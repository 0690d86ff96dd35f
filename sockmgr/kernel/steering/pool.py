"""Pools of SO_REUSEPORT queues at one address, and the program that chooses among them.

A Pool owns its sockets and closes none before close(): closing one resets the connections in its
queue and renumbers the others. The program is replaced as a whole, so that a connection meets the
old choice or the new one, never a mixture. Classic BPF, which needs no privilege, gives everything
to one queue or chooses at random; by eBPF, where that is permitted, queues take turns. A Pool
decides nothing: its caller says which queues are fed.
"""

from __future__ import annotations

import contextlib
import errno
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from sockmgr.kernel.closing import closed_on_error
from sockmgr.kernel.steering import classic, places
from sockmgr.kernel.steering.flow import Flow
from sockmgr.kernel.steering.members import bind_twin, cannot_join

if TYPE_CHECKING:
    from sockmgr.kernel.steering.round_robin import Refusal, RoundRobin

_LOCK_FILTER = 44  # SO_LOCK_FILTER, asm-generic/socket.h
_ROOM = 256  # queues in a map, 8 bytes each; a map that gets too small is replaced
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}


class Choice(StrEnum):
    """How the queue of a connection is chosen among those that are fed."""

    ONE = "one queue"
    ROUND_ROBIN = "round robin (eBPF)"
    RANDOM = "random (classic BPF)"


class Pool:
    """The queues of one address. Number n is a place in this pool, not the kernel's index.

    `choice` is how a queue is chosen now among those that are fed; if at random, `refusal` is why.
    With `knows_queues` a connection can be given to one queue: we know its place, or eBPF needs
    none.
    """

    def __init__(
        self,
        queues: Sequence[socket.socket],
        *,
        fed: Mapping[int, int],
        order: Sequence[int] | None = None,
    ) -> None:
        """Own `queues`, which are one group already, and feed `fed` (number -> weight).

        `order` has the numbers of the queues in the order of their places in the kernel; by default
        0, 1, ... Raises OSError if the kernel does not let us steer; then the caller still owns the
        queues.
        """
        self._queues = list(queues)
        # The kernel's index -> our number.
        self._order = list(range(len(queues)) if order is None else order)
        self._located = True  # as far as we know
        self._fed: dict[int, int] = {}
        self._private: dict[Flow, int] = {}
        self.choice = Choice.ONE
        self._exact: RoundRobin | None = None  # once there are several to choose from
        self.refusal: Refusal | None = None
        self._again: Callable[[socket.socket], None] | None = None  # attaches the same program
        try:
            self.feed(fed)
        except BaseException:
            self._release()
            raise

    @classmethod
    def join(cls, sock: socket.socket, *, backlog: int) -> Pool:
        """Make a pool of `sock`, which serves already, and of one new queue beside it.

        The pool owns `sock`. Raises ListenError if that is not possible; then `sock` is unchanged.
        """
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        twin: socket.socket | None = None
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            twin = bind_twin(sock, quiet=True)
            if twin.type == socket.SOCK_STREAM:
                twin.listen(backlog)
            # A socket that was bound without SO_REUSEPORT can carry a program only when the group
            # has a second member. Until the program is attached, that one drops what it gets.
            pool = cls([sock, twin], fed={0: 1})
            classic.remove_filter(twin)
        except OSError as error:
            if twin is not None:
                twin.close()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, before)
            raise cannot_join(sock, error) from error
        return pool

    def __len__(self) -> int:
        return len(self._queues)

    def __getitem__(self, number: int) -> socket.socket:
        return self._queues[number]

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
        """The queues that get connections now, number -> weight."""
        return dict(self._fed)

    def grow(self, *, backlog: int) -> None:
        """Add one queue, which gets no connection until it is fed. None may be shut down now."""
        # The attached program never returns a place that did not exist when it was attached, so
        # the new member may listen at once.
        twin = bind_twin(self._queues[0])
        with closed_on_error(twin):
            if twin.type == socket.SOCK_STREAM:
                twin.listen(backlog)
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

    @contextlib.contextmanager
    def exception(self, flow: Flow, number: int) -> Iterator[None]:
        """Give what comes by `flow` to this queue, fed or not, and no other connection.

        The socket of the flow must outlive the context: its address and port are another's then.
        Raises OSError if that cannot be.
        """
        if number not in self._order:
            raise OSError(errno.ENOTCONN, "a worker shut its queue down")
        self._private[flow] = number
        try:
            self._attach()
            if not self.knows_queues:
                raise OSError(errno.EOPNOTSUPP, "the order of its queues is not known")
            yield
        finally:
            del self._private[flow]
            self._attach()

    def steer_again(self, number: int | None = None) -> None:
        """Attach the program again, in place of one that another process attached to the group.

        If only one queue can have been shut down, since a worker just started or ended there, its
        `number` saves work: then this costs the same however many queues are fed.
        """
        if number is None:
            self.doubt()
        elif self._exact is not None and number in self._fed:
            self._exact.hold(number, self._queues[number], self._make_way)
        if self._again:
            self._again(self._member())
        else:
            self._attach()

    def doubt(self) -> None:
        """Know that a queue may have been shut down: the kernel moves and forgets some then."""
        self._again = None
        if self._exact is not None:
            self._exact.doubt()

    def revive(self, down: Sequence[int], *, backlog: int) -> None:
        """Let the queues `down`, which a worker shut down, listen again, and steer as before.

        Raises OSError if one of them cannot, because another socket took the address; the others
        listen then, and the call may be repeated.
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
        # They may have been shut down in another order than in `down`, or while a queue joined.
        self.locate()
        if failure is not None:
            raise failure

    def renew(self, number: int, *, backlog: int) -> None:
        """Put a new queue in the place of this one, which gets no connections and holds none.

        A process that kept a descriptor of the old socket has one that does not listen any more.
        Raises OSError if there can be no new queue; then the old one stays in its place.
        """
        old = self._queues[number]
        # A worker may have cleared the option, and then no socket can be bound beside this one.
        old.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        others = (self._queues[n] for n in self._order if n != number)
        twin = bind_twin(next(others, old))
        with closed_on_error(twin):
            twin.listen(backlog)
        # The newest member has the last place, and moves into the place that the shutdown frees.
        # So no other member changes its place, and no connection goes to a wrong queue meanwhile.
        with contextlib.suppress(OSError):  # a worker may have shut it down already
            old.shutdown(socket.SHUT_RDWR)
        if number not in self._order:
            self._order.append(number)
        self._queues[number] = twin
        old.close()
        if number in self._fed:  # the program does not know the new one
            self.doubt()

    def _leave(self, number: int) -> None:
        """Note what shutdown(2) did in the kernel: the last member moved into the free place."""
        self.doubt()
        if number not in self._order:
            return
        place = self._order.index(number)
        last = self._order.pop()
        if place < len(self._order):
            self._order[place] = last

    def locate(self) -> bool:
        """Find the place of each queue in the kernel; return whether all were found.

        For each place one packet of ours is steered there, and every queue drops it: so no worker
        sees a connection, and the queue whose drop counter rises has that place. Other packets are
        steered as before. Some kernels let only root attach the filter that drops (EPERM), and no
        packet reaches an address that this host does not have now (EADDRNOTAVAIL).
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
        self._release()
        for queue in self._queues:
            queue.close()
        self._order.clear()  # an exception may end only now

    def _release(self) -> None:
        self._again = None
        if self._exact is not None:
            self._exact.close()
            self._exact = None

    def _attach(self) -> None:
        """Attach a program made for what is fed and for the places as they are now: O(fed)."""
        self._again, self.knows_queues = None, False
        up = set(self._order)
        fed = {number: weight for number, weight in self._fed.items() if number in up}
        if not fed:
            return  # every queue that is fed is shut down, so no program would help
        alone = len(fed) == 1
        # For a single queue classic BPF suffices, if we know its place.
        refusal = None if alone and self._located else self._take_turns(fed)
        is_classic = refusal is not None or (alone and self._located)
        if is_classic:
            self._steer_classic()
        self.knows_queues = self._located or not is_classic
        self.refusal = None if alone else refusal
        self.choice = Choice.ONE if alone else Choice.RANDOM if refusal else Choice.ROUND_ROBIN

    def _steer_classic(self) -> None:
        code = classic.encoded(self._program())
        classic.attach(self._member(), code)
        self._again = lambda member: classic.attach(member, code)

    def _member(self) -> socket.socket:
        """Return a queue through which a program can be attached to the group.

        Any member would do, but a worker may lock its own queue for good, without any privilege
        (SO_LOCK_FILTER, socket(7)). If all are locked, one more queue joins, which no worker had.
        """
        for number in self._order:
            if not self._queues[number].getsockopt(socket.SOL_SOCKET, _LOCK_FILTER):
                return self._queues[number]
        self.grow(backlog=socket.SOMAXCONN)
        return self._queues[-1]

    def _take_turns(self, fed: Mapping[int, int]) -> Refusal | None:
        """Let these queues take turns, or return why they cannot."""
        # Imported late, because most managers never feed several queues.
        from sockmgr.kernel.steering import round_robin  # noqa: PLC0415

        refusal = round_robin.refusal()
        if refusal is not None:
            return refusal
        try:
            if self._exact is None or max((*fed, *self._private.values())) >= self._exact.room:
                self._release()
                self._exact = round_robin.RoundRobin(room=max(_ROOM, 2 * len(self._queues)))
            self._exact.steer(self._queues, fed, self._private, self._make_way, self._member())
            self._again = self._exact.steer_again
        except OSError as error:
            return round_robin.Refusal.of(error)
        return None

    def _make_way(self) -> None:
        """Replace a program that has our queues in its own map, so that they can be put into ours.

        An earlier manager attached it, or it is ours, with the smaller map.
        """
        self._steer_classic()
        settle()

    def _program(self) -> classic.Program:
        """Return the random choice among the queues that are fed and not shut down."""
        place = {number: index for index, number in enumerate(self._order)}
        program = classic.choice(
            {place[number]: weight for number, weight in self._fed.items() if number in place}
        )
        for flow, number in self._private.items():
            if number in place:
                program = classic.exception(flow, place[number], program)
        return program


def settle() -> None:
    """Return when no processor runs a program any more that was replaced before. Blocks ~10 ms.

    membarrier(2), MEMBARRIER_CMD_GLOBAL, waits for an RCU grace period. Where it is missing, 50 ms
    are far longer than one.
    """
    import ctypes  # noqa: PLC0415 - 1 MB, which a manager without steered listeners saves

    number = _MEMBARRIER.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, 1, 0, 0) != 0:
        time.sleep(0.05)
