"""One configured listener: its queues, their health and their repair.

Owns every socket of the listener, and the path of a unix socket that it bound. Closes, shuts
down or rebinds nothing while the listener is configured, but for a unix socket that a worker made
useless. Knows nothing of workers: `lease` n is a number that the core uses.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Listen, Scheme
from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets, steering
from sockmgr.kernel.unix_name import UnixName
from sockmgr.log import Log
from sockmgr.manager.listeners.admission import Admission
from sockmgr.manager.listeners.shutdown_watch import ShutdownWatch

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
        self.is_ending = False
        self.is_anew = False  # no worker that outlived its manager has the sockets
        self.passed = 0  # how many of its sockets systemd holds anyway
        self.systemds: set[int] = set()  # the leases whose queues systemd holds as well
        self._only = held if isinstance(held, socket.socket) else None
        self._pool = held if isinstance(held, steering.Pool) else None
        self._retired: list[socket.socket] = []  # unix sockets that were replaced
        self._name: UnixName | None = None  # of a unix socket with a path
        if listen.address.scheme is Scheme.UNIX:
            self._name = UnixName(Path(listen.address.path))
        self.owns_path = owns_path
        self._admission = Admission(listen.name, self._name if owns_path else None)
        self._peak = 0
        self._mended: list[_Finding] = []  # since the last inspect()
        self._stuck: set[str] = set()  # what the last inspect() could not mend
        self._told = steering.Choice.ONE
        self._shutdowns = ShutdownWatch()
        self._shutdowns.watch(self.queues)
        self._tell_choice()

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
    def order(self) -> tuple[int, ...]:
        """The leases in the order of the kernel's indices; empty without steering."""
        return () if self._pool is None else self._pool.order

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
        try:
            while len(self._pool) <= n:
                self._pool.grow(backlog=self.listen.backlog)
        except OSError as error:
            raise steering.cannot_grow(self.address, len(self.queues), error) from error
        finally:
            self._shutdowns.watch(self.queues)
        return self.queues[n].fileno()

    def renew(self, n: int) -> None:
        """Put a new queue in the place of lease `n`, which is unfed and empty and has no holder.

        Whoever kept a descriptor of the old one would take connections from the next holder, or
        could make the queue useless to it. What systemd holds as well is left as it is.
        """
        if (
            self._pool is None
            or not self.has_handshakes
            or n >= len(self._pool)
            or n in self.systemds
        ):
            return
        if queues.queued(self.queues[n]):
            return  # they were given up, and the next holder may still serve them
        try:
            self._renew(n)
        except OSError as error:
            _log.warning("queue not replaced", listener=self.listen.name, lease=n,
                         because=(error.strerror or "").lower(),
                         means="the next generation gets the same one")  # fmt: skip

    def _renew(self, n: int) -> None:
        assert self._pool is not None  # noqa: S101 - the callers have looked
        self._pool.renew(n, backlog=self.listen.backlog)
        self._shutdowns.watch(self.queues)

    def feed(self, weights: Mapping[int, int]) -> None:
        """Give new connections to these leases only, in one step; the first is the fallback.

        Without any lease nothing changes: connections wait where they went before.
        """
        if self._pool is not None and weights:
            self.lease(max(weights))
            try:
                self._pool.feed(weights)
            finally:
                self._shutdowns.watch(self.queues)
            self._tell_choice()

    def _tell_choice(self) -> None:
        """Log how one of several queues is chosen, unless that is how it was before."""
        if self._pool is not None and self.choice not in (steering.Choice.ONE, self._told):
            self._told = self.choice
            _log_choice(self.listen.name, self._pool)

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
        self._admission.pause(self.queues if self.has_handshakes else ())

    def admit(self) -> None:
        """Undo refuse(): it is configured again."""
        self._admission.resume(self.queues if self.has_handshakes else ())

    def end(self) -> None:
        """Refuse new clients, since all is to stop; those who wait are still to be served.

        Where systemd holds a listener as well, new clients wait in its queue for the next start.
        """
        self.is_ending = True
        if self.systemds:
            self.feed(dict.fromkeys(sorted(self.systemds), 1))
        elif self.has_handshakes and self.listen.address.scheme is not Scheme.FD:
            self._admission.end(self.queues)
        elif self.owns_path:
            self._admission.end(())

    @property
    def is_refusing(self) -> bool:
        """Whether new connections are refused."""
        return self._admission.is_refusing

    def is_left_to_others(self, n: int) -> bool:
        """Whether what waits in queue `n` is for the next start, for which systemd holds it."""
        return self.is_ending and n in self.systemds

    def unfinished(self, lease: int) -> Sequence[socket.socket]:
        """Return the queues, borrowed, that must be empty before the holders of `lease` may go.

        There is nothing to wait for where new connections go on coming.
        """
        if self.is_refusing:
            return self.queues
        if self.is_ending and (lease in self.systemds or not self.has_handshakes):
            return ()
        return self.queues[lease : lease + 1] if self.is_steered else ()

    # --- Health --------------------------------------------------------------------------------

    def watch_fd(self) -> int:
        """Return an fd, borrowed, that is readable when a queue was shut down, until inspect()."""
        return self._shutdowns.fileno()

    def inspect(self) -> list[str]:
        """Look at everything that workers can do to a listener, mend it, and tell in sentences."""
        self._shutdowns.clear()
        found = [*self._mended, *self._mend_shutdown(), *self._mend_name(), *self._mend_backlog()]
        found += self._mend_choice()
        self._mended.clear()
        told = [each.text for each in found if each.text not in self._stuck]
        self._stuck = {each.text for each in found if not each.mended}
        self._drop_retired()
        return [f"listener {self.listen.name}: {each}" for each in told]

    def close(self) -> None:
        """Close every socket and remove the path: the listener is no longer configured."""
        if self._name is not None:
            if self.owns_path:
                self._name.remove()
            self._name.release()
        self._shutdowns.close()
        for sock in (self._pool, self._only, *self._retired):
            if sock is not None:
                sock.close()

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
                return self._revive(self._pool, down)
            if self.queues[0].family == socket.AF_UNIX:
                return [self._replace("a worker shut the socket down")]
            self.queues[0].listen(self.listen.backlog)
        except OSError as error:
            what = "a worker shut the socket down, and it cannot listen again"
            return [_Finding(f"{what}: {(error.strerror or '').lower()}", mended=False)]
        return [_Finding(_listens_again(len(down)))]

    def _revive(self, pool: steering.Pool, down: list[int]) -> list[_Finding]:
        try:
            pool.revive(down, backlog=self.listen.backlog)
        except OSError:
            # One that a worker has connected to somewhere, say, never listens again.
            useless = [n for n in down if not queues.is_listening(self.queues[n])]
            if self.systemds.intersection(useless):
                raise
            for n in useless:
                self._renew(n)
            return [
                _Finding(
                    "a worker shut the socket down, and it could not listen again; it is replaced, "
                    "and only workers started from now on accept there"
                )
            ]
        return [_Finding(_listens_again(len(down)))]

    def _mend_choice(self) -> list[_Finding]:
        """Choose as before, should a worker have attached a program of its own (socket(7))."""
        try:
            if self._pool is not None:
                self._pool.steer_again()
        except OSError as error:
            why = (error.strerror or "").lower()
            return [_Finding(f"its queues cannot be steered now: {why}", mended=False)]
        return []

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
        self.retire(old)
        self._only = fresh
        self._shutdowns.watch(self.queues)
        if self._name is not None:
            self._name.release()
            self._name = UnixName(self._name.path)
            self._admission.path = self._name if self.owns_path else None
        return _Finding(
            f"{because}; it is bound anew, and only workers started from now on accept there"
        )

    def _drop_retired(self) -> None:
        for sock in [each for each in self._retired if not queues.queued(each)]:
            self._retired.remove(sock)
            sock.close()


def _listens_again(number: int) -> str:
    shut, listen = (
        ("the socket", "it listens") if number == 1 else (f"{number} sockets", "they listen")
    )
    return f"a worker shut {shut} down; {listen} again"


def _log_choice(name: str, pool: steering.Pool) -> None:
    if (refusal := pool.refusal) is None:
        _log.info("queues take turns", listener=name, choice=pool.choice)
        return
    _log.info(EventKind.QUEUES_CHOSEN_AT_RANDOM, listener=name, choice=pool.choice,
              because=refusal.reason, do=refusal.do)  # fmt: skip
    if refusal.verifier:
        _log.debug("verifier", listener=name, says=refusal.verifier)
