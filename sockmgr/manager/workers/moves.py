"""The queues by which workers of one service give each other connections: made and held here.

No connection passes through the manager. It only decides, by their generations, who may have the
same queue, and ends a queue when nobody is left who would take from it: then those who give keep
what they have, and drain it. worker/moves.py is the other side.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from sockmgr.config.spec import Spec
from sockmgr.log import Log
from sockmgr.manager.crash_points import Point, reached

_GIVE, _TAKE = "give", "take"

log = Log("sockmgr")


@dataclass(frozen=True, slots=True)
class MoveQueue:
    """Both ends of one queue: workers write to `give` and read from `take`. Owns them."""

    give: socket.socket
    take: socket.socket

    def end(self) -> None:
        """Have nothing written to it any more, by nobody who has it; what waits can be read."""
        self.give.shutdown(socket.SHUT_RDWR)  # by which who has only this end sees it as well
        self.close()

    def close(self) -> None:
        """Let go of it: the workers have it, and a manager that follows may."""
        self.give.close()
        self.take.close()


class Moves:
    """The queues of the service `name`, by what workers must have in common to share one."""

    def __init__(self, name: str) -> None:
        self._name, self._prefix = name, f"{name}@moves-"
        self._queues: dict[str, MoveQueue] = {}

    def of(self, spec: Spec) -> MoveQueue | None:
        """Return the queue, borrowed, for a worker of this spec; None if nothing can move."""
        if not spec.moves:
            return None
        key = _key(spec)
        if key not in self._queues:
            try:
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            except OSError as error:
                log.warning("no move queue", service=self._name, because=error.strerror,
                            means="workers that end close their connections")  # fmt: skip
                return None
            self._queues[key] = MoveQueue(*pair)
            reached(Point.MOVE_QUEUE_MADE)
        return self._queues[key]

    def keep(self, takers: Iterable[Spec]) -> bool:
        """End all queues but those of specs whose workers take, or will when they have started.

        To be called before any worker is told to stop for which nobody is left. Return whether any
        was ended.
        """
        if not self._queues:  # as of each service that is no app, which asks after each fact
            return False
        ended = self._queues.keys() - {_key(spec) for spec in takers if spec.moves}
        for key in ended:
            self._queues.pop(key).end()
            reached(Point.MOVE_QUEUE_ENDED)
        return bool(ended)

    @property
    def inodes(self) -> Collection[int]:
        """Those of the ends to take from, by which they are known elsewhere."""
        return {os.fstat(queue.take.fileno()).st_ino for queue in self._queues.values()}

    # --- For the next manager ------------------------------------------------------------------

    @property
    def descriptors(self) -> Mapping[str, int]:
        """Both ends of each, borrowed, by a name that tells the next manager which it is."""
        return {
            f"{self._prefix}{key}/{role}": end.fileno()
            for key, queue in self._queues.items()
            for role, end in ((_GIVE, queue.give), (_TAKE, queue.take))
        }

    def adopt(self, left: MutableMapping[str, list[int]]) -> None:
        """Own what a predecessor left under such names, and remove it from what was `left`."""
        ends: dict[str, dict[str, socket.socket]] = {}
        for name in [each for each in left if each.startswith(self._prefix)]:
            key, _, role = name.removeprefix(self._prefix).partition("/")
            for fd in left.pop(name):
                ends.setdefault(key, {})[role] = _socket(fd)  # one that it replaces is closed
        for key, pair in ends.items():
            if pair.keys() == {_GIVE, _TAKE} and not _is_ended(pair[_TAKE]):
                self._queues[key] = MoveQueue(pair[_GIVE], pair[_TAKE])
            else:  # half of one is of no use, nor one that was ended just before a death
                for end in pair.values():
                    end.close()


def _socket(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _is_ended(end: socket.socket) -> bool:
    look = select.poll()
    look.register(end, select.POLLRDHUP)
    return bool(look.poll(0))


def _key(spec: Spec) -> str:
    """Return the same for specs whose workers can go on with each other's connections."""
    addresses = sorted(str(listen.address) for listen in spec.listen)
    return hashlib.sha256("\0".join([spec.moves, *addresses]).encode()).hexdigest()[:12]
