"""Move queues on the pretended kernel: sockmgr's own decisions about them, whose sockets are not.

The manager's side is sockmgr.manager.workers.moves, the dispatcher's its own `MoveQueues`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from sockmgr.config.spec import Spec
from sockmgr.manager.workers import moves as manager_side
from sockmgr.manager.workers.moves import Moves
from sockmgr.programs.dispatcher import dispatcher
from sockmgr.programs.dispatcher import moves as dispatcher_side
from sockmgr.programs.dispatcher.moves import MoveQueues
from tests.simulation.kernel import Connection, End, Kernel


class ServiceMoves(Moves):
    """The real one, whose sockets are of this kernel."""

    def __init__(self, name: str, kernel: Kernel) -> None:
        super().__init__(name)
        self._kernel = kernel

    def of(self, spec: Spec) -> Any:
        Sockets.kernel = self._kernel
        return super().of(spec)

    def adopt(self, left: Any) -> None:
        Sockets.kernel = self._kernel
        super().adopt(left)


class Sockets:
    """What both sides call of the modules os and socket. A descriptor is the number of an end."""

    kernel: Kernel
    AF_UNIX = SOCK_SEQPACKET = SHUT_RDWR = MSG_DONTWAIT = MSG_CMSG_CLOEXEC = 0

    @classmethod
    def socketpair(cls, *_: int) -> tuple[End, End]:
        if cls.kernel.fails("pair"):
            raise OSError(24, "Too many open files")
        return cls.kernel.move_queue()

    @classmethod
    def adopted(cls, number: int) -> End:
        return cls.kernel.ends[number]

    @staticmethod
    def socket(*, fileno: End) -> End:
        return fileno

    @staticmethod
    def fstat(end: Any) -> Any:
        return SimpleNamespace(st_ino=end if isinstance(end, int) else end.number)

    @staticmethod
    def memfd_create(name: str) -> int:
        del name
        return 1

    @staticmethod
    def write(memfd: int, data: bytes) -> None: ...

    @staticmethod
    def close(memfd: int) -> None: ...


class OwnMoveQueues(MoveQueues):
    """The real one; a connection knows to which listener it came."""

    def _listener_of(self, fds: Sequence[Any]) -> tuple[str, str]:
        [connection] = fds
        for tap, key in self._dispatcher.sources.keys.items():
            if tap.queue.address == connection.address:  # type: ignore[attr-defined]
                return key, ""
        return "", "it came to another listener"


class Rights:
    """What came with a message; what is closed of that is lost."""

    @staticmethod
    def received(ancillary: list[Connection]) -> list[Connection]:
        return ancillary

    @staticmethod
    def close_all(fds: Sequence[Connection]) -> None:
        for each in fds:
            each.lose("the dispatcher has no listener to which it came")


def has_room(fd: int) -> bool:
    """Tell whether more descriptors can be open."""
    del fd
    return True


def is_ended(end: End) -> bool:
    return end.queue.is_shut


def install(put: Callable[[Any, str, Any], object] = setattr) -> None:
    """Have the code of both sides use pretended sockets, for as long as `put` has it."""
    for module in (manager_side, dispatcher_side):
        put(module, "socket", Sockets)
        put(module, "os", Sockets)
    put(manager_side, "_socket", Sockets.adopted)
    put(manager_side, "_is_ended", is_ended)
    put(dispatcher_side, "rights", Rights)
    put(dispatcher_side, "has_room", has_room)
    put(dispatcher_side, "_ROOM", 0)
    put(dispatcher, "MoveQueues", OwnMoveQueues)
