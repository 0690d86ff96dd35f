"""One configured listener: its queues, their health and their repair.

Owns every socket of the listener, and the path of a unix socket that it bound. Closes, shuts
down or rebinds nothing while the listener is configured, but for a unix socket that a worker made
useless. Knows nothing of workers: `lease` n is a number that the core uses.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sockmgr.core.errors import ListenError
from sockmgr.core.snapshot import ListenerSnapshot
from sockmgr.core.spec import Listen, Scheme
from sockmgr.kernel import handshakes, queues, sockets, steering
from sockmgr.kernel.unix_name import UnixName
from sockmgr.log import Log

_log = Log("sockmgr.listener")

_STEERED, _OVERLAP = "steered", "overlap"
MOST_QUEUES = 512  # what the program that chooses is sure to have room for: BPF_MAXINSNS


@dataclass(frozen=True, slots=True)
class _Finding:
    """One sentence on what was found, and whether all is well again."""

    text: str
    mended: bool = True


class Listener:
    """The sockets of one name in the config, as `opening` came by them; close() ends it."""

    def __init__(
        self,
        listen: Listen,
        held: socket.socket | steering.Pool,
        why_overlap: str = "",
        *,
        owns_path: bool = False,
    ) -> None:
        """Own `held`: a pool, or one socket and why it is not steered.

        `owns_path`: the path of a unix socket is ours to remove.
        """
        self.listen = listen
        self.why_overlap = why_overlap
        self.is_refusing = False
        self.passed = 0  # how many of its sockets systemd holds anyway
        self._only = held if isinstance(held, socket.socket) else None
        self._pool = held if isinstance(held, steering.Pool) else None
        self._retired: list[socket.socket] = []  # unix sockets that were replaced
        self._name: UnixName | None = None  # of a unix socket with a path
        if listen.address.scheme is Scheme.UNIX:
            self._name = UnixName(Path(listen.address.path))
        self._owns_path = owns_path
        self._peak = 0
        self._mended: list[_Finding] = []  # since the last inspect()
        self._stuck: set[str] = set()  # what the last inspect() could not mend
        self._told = steering.Choice.ONE
        self._epoll = select.epoll()
        for queue in self.queues:
            self._watch(queue)
        self._tell_choice()

    def written(self, settled: Collection[int] = ()) -> ListenerSnapshot:
        """Return what resume() needs beside the sockets; at `settled` leases no worker boots."""
        return ListenerSnapshot(
            listen=self.listen,
            inodes=tuple(queues.inode(queue) for queue in self.queues),
            order=() if self._pool is None else self._pool.order,
            fed=tuple(self.fed.items()),
            why_overlap=self.why_overlap,
            owns_path=self._owns_path,
            refusing=self.is_refusing,
            # Whoever boots is about to set O_NONBLOCK, and nobody tells us when.
            blocking=tuple(
                n
                for n, queue in enumerate(self.queues)
                if n in settled and os.get_blocking(queue.fileno())
            ),
        )

    # --- Names and numbers ---------------------------------------------------------------------

    @property
    def is_steered(self) -> bool:
        """Whether each lease has a queue of its own; otherwise why_overlap tells."""
        return self._pool is not None

    @property
    def cutover(self) -> str:
        """How new connections change over: "steered", or "overlap" (see why_overlap)."""
        return _STEERED if self.is_steered else _OVERLAP

    @property
    def choice(self) -> steering.Choice:
        """How one of the queues that are fed is chosen now."""
        return steering.Choice.ONE if self._pool is None else self._pool.choice

    @property
    def queues(self) -> tuple[socket.socket, ...]:
        """All queues, borrowed, by lease."""
        if self._pool is not None:
            return self._pool.queues
        assert self._only is not None  # noqa: S101 - __init__ has one or the other
        return (self._only,)

    @property
    def address(self) -> str:
        """The real address, with the port that was chosen for port 0."""
        if self.listen.address.scheme is Scheme.UNIX:
            return str(self.listen.address)  # the socket may have been bound beside it
        return sockets.describe(self.queues[0])

    @property
    def fed(self) -> Mapping[int, int]:
        """What is fed now: lease -> weight."""
        return {0: 1} if self._pool is None else self._pool.fed

    def inode(self, n: int) -> int:
        """Return the inode of lease `n`'s queue, by which a process's fds are compared."""
        return queues.inode(self.queues[0 if self._pool is None else n])

    def queued(self) -> int:
        """Return how many connections wait now, in all queues (UDP: bytes)."""
        return sum(queues.queued(queue) for queue in (*self.queues, *self._retired))

    def waiting(self, n: int) -> int:
        """Return how many connections wait now in the queue of lease `n` (UDP: bytes)."""
        return queues.queued(self.queues[0 if self._pool is None else n])

    def sample(self) -> int:
        """Return queued(), and remember it for take_peak() if it is a peak."""
        now = self.queued()
        self._peak = max(self._peak, now)
        return now

    @property
    def left(self) -> Mapping[int, int]:
        """Lease -> how many wait there, for sockets that were open before us; the fullest first.

        An empty queue to which nobody is on the way is not among them, unless fed. Takes 30 ms.
        """
        if self._pool is None or len(self._pool) == 1:
            return {}
        steering.settle()  # from now on handshakes begin in the fed queue only
        begun = handshakes.under_way(self.queues[0])
        waiting = {n: queues.queued(queue) for n, queue in enumerate(self.queues)}
        left = {n: count for n, count in waiting.items() if count or begun or n in self.fed}
        return dict(sorted(left.items(), key=lambda item: (-item[1], item[0] not in self.fed)))

    def take_peak(self) -> int:
        """Return the highest sample since the last call, and forget it."""
        peak, self._peak = self._peak, 0
        return peak

    # --- Leases --------------------------------------------------------------------------------

    def lease(self, n: int) -> int:
        """Return the fd of queue `n`, borrowed, after making as many queues as that needs.

        Raises ListenError if that cannot be.
        """
        if self._pool is None:
            return self.queues[0].fileno()
        if n >= MOST_QUEUES:
            raise ListenError(
                f"{self.address} would need more than {MOST_QUEUES} queues",
                means=f"the {len(self.queues)} queues it has go on as before",
                do='run fewer workers, or let them share a queue: accept = "shared"',
            )
        # First, or the new queue would get a wrong number.
        self._mended += [each for each in self._mend_shutdown() if each.mended]
        while len(self._pool) <= n:
            try:
                self._pool.grow(backlog=self.listen.backlog)
            except OSError as error:
                raise self._no_queue(error) from error
            self._watch(self.queues[-1])
        return self.queues[n].fileno()

    def _no_queue(self, error: OSError) -> ListenError:
        do = "raise LimitNOFILE= if file descriptors ran out; reload again otherwise"
        if isinstance(error, PermissionError):  # the others belong to another user
            do = "repeat its ListenStream= once more in the .socket unit, or run as root"
        return ListenError(
            f"cannot open another queue on {self.address}: {(error.strerror or '').lower()}",
            means=f"the {len(self.queues)} queues it has go on as before",
            do=do,
        )

    def feed(self, weights: Mapping[int, int]) -> None:
        """Give new connections to these leases only, in one step; the first is the fallback.

        Without any lease nothing changes: connections wait where they went before.
        """
        if self._pool is not None and weights:
            self.lease(max(weights))
            self._pool.feed(weights)
            self._tell_choice()

    def _tell_choice(self) -> None:
        """Log once how one of several queues is chosen, and again when that has changed."""
        if self._pool is None or self.choice in (steering.Choice.ONE, self._told):
            return
        self._told = self.choice
        if (refusal := self._pool.refusal) is None:
            _log.info("queues take turns", listener=self.listen.name, choice=self.choice)
            return
        _log.info(
            "queues chosen at random", listener=self.listen.name, choice=self.choice,
            because=refusal.reason, do=refusal.do,
        )  # fmt: skip
        if refusal.verifier:
            _log.debug("verifier", listener=self.listen.name, says=refusal.verifier)

    @property
    def has_handshakes(self) -> bool:
        """Whether connections come by a handshake, that is by TCP."""
        queue = self.queues[0]
        return queue.type == socket.SOCK_STREAM and queue.family != socket.AF_UNIX

    def retire(self, sock: socket.socket) -> None:
        """Own a unix socket that the path no longer leads to, until nobody waits there."""
        self._retired.append(sock)

    # --- Its end -------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Let nobody come any more; who waits, waits on. For one that is to be closed."""
        if self.is_refusing:
            return
        self.is_refusing = True
        for queue in self.queues if self.has_handshakes else ():
            steering.refuse_handshakes(queue)
        if self._name is not None and self._owns_path:
            self._name.take_away()

    def admit(self) -> None:
        """Undo refuse(): it is configured again."""
        if not self.is_refusing:
            return
        self.is_refusing = False
        for queue in self.queues if self.has_handshakes else ():
            steering.admit_handshakes(queue)
        if self._name is not None:
            self._name.restore()  # or the next inspect() finds that it is not there

    # --- Health --------------------------------------------------------------------------------

    def watch_fd(self) -> int:
        """Return an fd, borrowed, that is readable when a queue was shut down, until inspect()."""
        return self._epoll.fileno()

    def inspect(self) -> list[str]:
        """Look at everything that workers can do to a listener, mend it, and tell in sentences."""
        self._epoll.poll(0)
        found = [*self._mended, *self._mend_shutdown(), *self._mend_name(), *self._mend_backlog()]
        self._mended.clear()
        told = [each.text for each in found if each.text not in self._stuck]
        self._stuck = {each.text for each in found if not each.mended}
        self._drop_retired()
        return [f"listener {self.listen.name}: {each}" for each in told]

    def close(self) -> None:
        """Close every socket and remove the path: the listener is no longer configured."""
        if self._name is not None:
            if self._owns_path:
                self._name.remove()
            self._name.release()
        self._epoll.close()
        for sock in (self._pool, self._only, *self._retired):
            if sock is not None:
                sock.close()

    def _watch(self, queue: socket.socket) -> None:
        if queue.type == socket.SOCK_STREAM:
            # RDHUP alone: silent however many connections come. Edge-triggered, so that what
            # cannot be mended does not keep the manager awake.
            self._epoll.register(queue, select.EPOLLRDHUP | select.EPOLLET)

    def _mend_shutdown(self) -> list[_Finding]:
        down = [
            n
            for n, queue in enumerate(self.queues)
            if queue.type == socket.SOCK_STREAM and not queues.is_listening(queue)
        ]
        if not down:
            return []
        try:
            if self._pool is not None:
                self._pool.revive(down, backlog=self.listen.backlog)
            elif self.queues[0].family == socket.AF_UNIX:
                return [self._replace("a worker shut the socket down")]
            else:
                self.queues[0].listen(self.listen.backlog)
        except OSError as error:
            what = "a worker shut the socket down, and it cannot listen again"
            return [_Finding(f"{what}: {(error.strerror or '').lower()}", mended=False)]
        if len(down) > 1:
            return [_Finding(f"a worker shut {len(down)} sockets down; they listen again")]
        return [_Finding("a worker shut the socket down; it listens again")]

    def _mend_backlog(self) -> list[_Finding]:
        wanted = queues.reachable(self.listen)
        shrunk = []
        for queue in self.queues:
            if queue.type != socket.SOCK_STREAM or not queues.is_listening(queue):
                continue
            found = queues.backlog(queue)
            if found < wanted:
                queue.listen(self.listen.backlog)
                shrunk.append(f"a worker shrank the backlog to {found}; it is {wanted} again")
        return [_Finding(text) for text in shrunk[:1]]

    def _mend_name(self) -> list[_Finding]:
        name = self._name
        if name is None or name.holds or self.is_refusing:
            return []
        if not name.vacant and not (name.is_socket and sockets.is_stale(name.path)):
            return [
                _Finding(
                    f"{name.path} is now something else, and new connections do not reach us; "
                    "remove it and reload",
                    mended=False,
                )
            ]
        did = f"a worker {'removed' if name.vacant else 'replaced'} {name.path}"
        if name.restore():
            return [_Finding(f"{did}; it is there again")]
        return [self._replace(did)]

    def _replace(self, because: str) -> _Finding:
        """Bind a new unix socket over the path; the old one lives until its queue is empty.

        An abstract name is free only when its last holder is gone, so that may well fail.
        """
        try:
            if self._name is None:
                fresh = sockets.bind(self.listen, reuse_port=False)
            else:
                fresh = sockets.bind_over(self.listen)
        except ListenError as error:
            return _Finding(f"{because}, and {error.what}", mended=False)
        old = self.queues[0]
        self._epoll.unregister(old)
        self.retire(old)
        self._only = fresh
        self._watch(fresh)
        if self._name is not None:
            self._name.release()
            self._name = UnixName(self._name.path)
        return _Finding(
            f"{because}; it is bound anew, and only workers started from now on accept there"
        )

    def _drop_retired(self) -> None:
        for sock in [each for each in self._retired if not queues.queued(each)]:
            self._retired.remove(sock)
            sock.close()
