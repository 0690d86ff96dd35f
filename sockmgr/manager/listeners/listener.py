"""One configured listener: its queues, which of them are fed, and its end.

Owns every socket of the listener, and the path of a unix socket that it bound (`held`). Closes,
shuts down or rebinds nothing while the listener is configured, but for a unix socket that a worker
made useless (`repair`). Knows nothing of workers: `lease` n is a number that the fleet uses.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping, Sequence

from sockmgr.api.records import EventKind
from sockmgr.config.spec import Listen
from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets
from sockmgr.kernel.steering.members import cannot_grow
from sockmgr.kernel.steering.pool import Choice, Pool
from sockmgr.log import Log
from sockmgr.manager.listeners.held import HeldSockets
from sockmgr.manager.listeners.reach import Reach
from sockmgr.manager.listeners.repair import Finding, Repair

_log = Log("sockmgr.listener")

_STEERED, _OVERLAP = "steered", "overlap"
SAMPLE_SHARE = 50  # times what a sample took until the next
MOST_QUEUES = 512  # what the program that chooses is sure to have room for: BPF_MAXINSNS


class Listener(HeldSockets):
    """The sockets of one name in the config, as `opening` came by them; close() ends it."""

    def __init__(
        self,
        listen: Listen,
        held: socket.socket | Pool,
        why_overlap: str = "",
        *,
        owns_path: bool = False,
    ) -> None:
        """Own `held`: a pool, or one socket and why it is not steered.

        `owns_path`: the path of a unix socket is ours to remove.
        """
        self.why_overlap = why_overlap
        self.is_ending = False
        self.is_last = False  # nobody else will have its sockets: systemd closes them as well
        self._left: int | None = None  # the lease whose queue is for the next start
        self.is_anew = False  # no worker that outlived its manager has the sockets
        super().__init__(listen, held, owns_path=owns_path)
        self._repair = Repair(self)
        self._reach = Reach(self)
        self._peak, self._sample_at = 0, 0.0
        self._told = Choice.ONE
        self._tell_choice()

    # --- Names and numbers ---------------------------------------------------------------------

    @property
    def is_steered(self) -> bool:
        """Whether each lease has a queue of its own; otherwise why_overlap tells."""
        return self.pool is not None

    @property
    def cutover(self) -> str:
        """How new connections change over: "steered", or "overlap" (see why_overlap)."""
        return _STEERED if self.is_steered else _OVERLAP

    @property
    def choice(self) -> Choice:
        """How one of the queues that are fed is chosen now."""
        return Choice.ONE if self.pool is None else self.pool.choice

    @property
    def order(self) -> tuple[int, ...]:
        """The leases in the order of the kernel's indices; empty without steering."""
        return () if self.pool is None else self.pool.order

    @property
    def address(self) -> str:
        """The real address, with the port that was chosen for port 0."""
        if self.listen.address.traits.has_path:
            return str(self.listen.address)  # the socket may have been bound beside it
        return sockets.describe(self.queues[0])

    @property
    def fed(self) -> Mapping[int, int]:
        """What is fed now: lease -> weight."""
        return {0: 1} if self.pool is None else self.pool.fed

    def waiting(self, n: int) -> int:
        """Return how many connections wait now in the queue of lease `n` (UDP: bytes)."""
        return queues.queued(self.queue(n))

    def sample(self) -> None:
        """Remember queued() for take_peak() if it is a peak.

        Each queue has to be asked, so one with many is sampled less often than this is called.
        """
        began = time.monotonic()
        if began >= self._sample_at:
            self._peak = max(self._peak, self.queued())
            self._sample_at = began + SAMPLE_SHARE * (time.monotonic() - began)

    def take_peak(self) -> int:
        """Return the highest sample since the last call, and forget it."""
        peak, self._peak = self._peak, 0
        return peak

    # --- Leases --------------------------------------------------------------------------------

    def lease(self, n: int) -> int:
        """Return the fd of queue `n`, borrowed, after making as many queues as that needs.

        Raises ListenError if that cannot be.
        """
        # What is not steered has one queue, and all leases are that one.
        if self.pool is None:
            return self.queues[0].fileno()
        if n >= MOST_QUEUES:
            raise ListenError(
                f"{self.address} would need more than {MOST_QUEUES} queues",
                means=f"the {len(self.queues)} queues it has go on as before",
                do='run fewer workers, or let them share a queue: accept = "shared"',
            )
        # First, or the new queue would get a wrong number.
        self._repair.revive()
        if n >= len(self.pool):
            self._grow(self.pool, n + 1)
        return self.queue(n).fileno()

    def _grow(self, pool: Pool, size: int) -> None:
        try:
            while len(pool) < size:
                pool.grow(backlog=self.listen.backlog)
        except OSError as error:
            raise cannot_grow(self.address, len(pool), error) from error
        finally:
            self.watch()

    def renew(self, n: int) -> None:
        """Put a new queue in the place of lease `n`, which is unfed and empty and has no holder.

        Whoever kept a descriptor of the old one would take connections from the next holder, or
        could make the queue useless to it. What systemd holds as well is left as it is.
        """
        if (
            self.pool is None
            or not self.has_handshakes
            or n >= len(self.pool)
            or n in self.systemds
            or self.is_ending  # clients would find the new queue, and wait for nobody
        ):
            return
        if queues.queued(self.queues[n]):
            return  # they were given up, and the next holder may still serve them
        try:
            self.renew_queue(n)
        except OSError as error:
            _log.warning("queue not replaced", listener=self.listen.name, lease=n,
                         because=(error.strerror or "").lower(),
                         means="the next generation gets the same one")  # fmt: skip

    def feed(self, weights: Mapping[int, int]) -> None:
        """Give new connections to these leases only, in one step; the first is the fallback.

        Without any lease nothing changes: connections wait where they went before.
        """
        # Nothing to feed is no reason to feed nobody: who comes waits for the next worker.
        if self.pool is not None and weights:
            self.lease(max(weights))
            try:
                self.pool.feed(weights)
            finally:
                self.watch()
            self._tell_choice()

    def _tell_choice(self) -> None:
        """Log how one of several queues is chosen, unless that is how it was before."""
        if self.pool is not None and self.choice not in (Choice.ONE, self._told):
            self._told = self.choice
            _log_choice(self.listen.name, self.pool)

    @property
    def why_unreachable(self) -> str:
        """Why reach() always fails, or nothing."""
        pool = self.pool
        if pool is None:
            return self.why_overlap
        if not self.has_handshakes:
            return "it gets datagrams, not connections"
        # Some kernels let only root find the places of queues that systemd has passed.
        no = "the order of its queues is not known; CAP_BPF, or root, would do without"
        return "" if pool.knows_queues else no

    async def reach(self, n: int) -> socket.socket:
        """Return a connection of ours, the caller's, to the queue of lease `n`, fed or not.

        Nobody else gets there by this way, on this host or elsewhere, and the public goes where it
        went. The worker sees a loopback address. It does not block. There is no deadline: where
        the queue is full it takes until there is room. Raises ListenError, and OSError if the
        connection fails.
        """
        why = "it refuses new connections" if self.is_refusing else self.why_unreachable
        if self.pool is None or why:
            raise ListenError(f"{self.address} has no way to one lease: {why}")
        self.lease(n)
        return await self._reach.connect(self.pool, n)

    # --- Its end -------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Let nobody come any more; who waits, waits on. For one that is to be closed."""
        self.admission.pause(self.queues if self.has_handshakes else ())

    def admit(self) -> None:
        """Undo refuse(), or an end() at which systemd holds it: it is configured again."""
        self.is_ending, self._left = False, None
        self.admission.resume(self.queues if self.has_handshakes else ())

    def end(self, held: Collection[int] = ()) -> None:
        """Refuse new clients, since all is to stop; those who wait are still to be served.

        Where systemd holds a listener as well, new clients wait in its queue for the next start: in
        one of these, which is none of those that workers have (`held`), if systemd has so many.
        """
        self.is_ending = True
        if self.systemds and not (self.is_last and self.has_handshakes):
            # Workers could still take them, and be told to stop before they have read anything.
            # In several queues, the next start would need a worker for each.
            self._left = min(self.systemds.difference(held) or self.systemds)
            self.feed({self._left: 1})
        elif self.has_handshakes and not self.listen.address.traits.is_inherited:
            self.admission.end(self.queues, self.listen.on_stop)
        elif self.owns_path:
            self.admission.end((), self.listen.on_stop)

    @property
    def is_refusing(self) -> bool:
        return self.admission.is_refusing

    def is_left_to_others(self, n: int) -> bool:
        """Whether what waits in queue `n` is for the next start, for which systemd holds it."""
        return self.is_ending and n == self._left

    def unfinished(self, lease: int) -> Sequence[socket.socket]:
        """Return the queues, borrowed, that must be empty before the holders of `lease` may go.

        There is nothing to wait for where new connections go on coming.
        """
        # Where nobody comes any more, each holder serves whoever waits anywhere.
        if self.is_refusing:
            return self.queues
        if self.is_left_to_others(lease) or (self.is_ending and not self.has_handshakes):
            return ()
        return self.queues[lease : lease + 1] if self.is_steered else ()

    # --- Health --------------------------------------------------------------------------------

    def watch_fd(self) -> int:
        """Return an fd, borrowed, that is readable when a queue was shut down, until inspect()."""
        return self.shutdowns.fileno()

    @property
    def is_damaged(self) -> bool:
        """Whether the next inspect() may close queues and replace them: somebody shut one down."""
        return self._repair.is_due

    def inspect(self, lease: int | None = None) -> list[Finding]:
        """Mend what workers did to the listener; return the findings that are not reported yet.

        With a `lease` this is about one worker that has it: Repair.look() says what is looked at.
        """
        return self._repair.look(lease)


def _log_choice(name: str, pool: Pool) -> None:
    if (refusal := pool.refusal) is None:
        _log.info("queues take turns", listener=name, choice=pool.choice)
        return
    _log.info(EventKind.QUEUES_CHOSEN_AT_RANDOM, listener=name, choice=pool.choice,
              because=refusal.reason, do=refusal.do)  # fmt: skip
    if refusal.verifier:
        _log.debug("verifier", listener=name, says=refusal.verifier)
