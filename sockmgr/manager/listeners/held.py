"""The sockets of one listener, and the path of a unix socket. Owns them."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec.structs import replace

from sockmgr.config.spec import Listen
from sockmgr.errors import ListenError
from sockmgr.kernel import queues, sockets
from sockmgr.kernel.steering.pool import Pool
from sockmgr.kernel.unix_name import UnixName
from sockmgr.manager.crash_points import Point, reached
from sockmgr.manager.listeners.admission import Admission
from sockmgr.manager.listeners.shutdown_watch import ShutdownWatch


class HeldSockets:
    """A pool of queues that the kernel steers among, or a single socket that it does not."""

    def __init__(self, listen: Listen, held: socket.socket | Pool, *, owns_path: bool) -> None:
        """Own `held`. `owns_path`: the path of a unix socket is ours to remove."""
        self.listen = listen  # what the config says of it now
        self.systemds: set[int] = set()  # the leases whose queues systemd holds as well
        self.pool = held if isinstance(held, Pool) else None
        self._only = held if isinstance(held, socket.socket) else None
        self._retired: list[socket.socket] = []  # unix sockets that were replaced
        self.name: UnixName | None = None  # of a unix socket with a path
        if listen.address.traits.has_path:
            self.name = UnixName(Path(listen.address.path))
        self.owns_path = owns_path
        self.admission = Admission(listen.name, self.name if owns_path else None)
        self.shutdowns = ShutdownWatch()
        self._inodes: dict[socket.socket, int] = {}  # of the queues by lease, in this order
        self.watch()

    @property
    def queues(self) -> tuple[socket.socket, ...]:
        """All queues, borrowed, by lease."""
        if self.pool is not None:
            return self.pool.queues
        assert self._only is not None  # noqa: S101 - __init__ has one or the other
        return (self._only,)

    def queue(self, lease: int) -> socket.socket:
        """Return the queue of a lease, borrowed; where nothing is steered all leases have one."""
        return self.queues[0] if self.pool is None else self.pool[lease]

    def of(self, lease: int) -> Sequence[socket.socket]:
        """Return the queue of a lease, or nothing if the lease has none of its own (yet)."""
        known = self.pool is None or lease < len(self.pool)
        return (self.queue(lease),) if known else ()

    @property
    def has_handshakes(self) -> bool:
        """Whether connections come by a handshake, that is by TCP."""
        queue = self.queues[0]
        return queue.type == socket.SOCK_STREAM and queue.family != socket.AF_UNIX

    def inode(self, lease: int) -> int:
        """Return the inode of the queue of a lease, by which a process's fds are compared."""
        return self._inodes[self.queue(lease)]

    @property
    def inodes(self) -> Collection[int]:
        """The inodes of all queues, by lease."""
        return self._inodes.values()

    def queued(self) -> int:
        """Return how many connections wait now, in all queues (UDP: bytes)."""
        return sum(queues.queued(queue) for queue in (*self.queues, *self._retired))

    def watch(self) -> None:
        """Know the queues that there are now: watch for one that is shut down.

        Their inodes are noted here, since they are asked for far more often than queues change.
        """
        known = self._inodes
        self._inodes = {each: known.get(each) or queues.inode(each) for each in self.queues}
        self.shutdowns.watch(self.queues)

    def renew_queue(self, lease: int) -> None:
        """Put a new queue in the place of one; raise OSError, with the old one in its place."""
        assert self.pool is not None  # noqa: S101 - the callers have looked
        # The pool shuts the old queue down. As long as a worker or a store holds it as well, the
        # watch would tell of that as of a damage, and all queues would be looked at.
        self.shutdowns.leave(self.pool[lease])
        try:
            self.pool.renew(lease, backlog=self.listen.backlog)
            reached(Point.QUEUE_RENEWED)
        finally:
            self.watch()

    def retire(self, sock: socket.socket) -> None:
        """Own a unix socket that the path no longer leads to, until nobody waits there."""
        self._retired.append(sock)

    def replace(self, fresh: socket.socket) -> None:
        """Own `fresh`, which was bound in the place of the single unix socket; retire the old."""
        # The old socket is kept: clients wait in it, and old workers still accept from there.
        self.retire(self.queues[0])
        self._only = fresh
        self.watch()
        if self.name is not None:
            self.name.release()
            self.name = UnixName(self.name.path)
            self.admission.path = self.name if self.owns_path else None

    def apply(self, listen: Listen) -> None:
        """Set on the open sockets what the config says of the listener by now.

        Its name stays: what is kept for the next manager is labelled with it. Raises ListenError,
        and then all is as it was.
        """
        # The node first, as it may fail: a backlog can always be set.
        before, self.listen = self.listen, replace(listen, name=self.listen.name)
        try:
            if _node(before) != _node(self.listen):
                self._change_node()
            if before.backlog != self.listen.backlog:
                for queue in self.queues:
                    # One that was shut down gets it as soon as Repair makes it listen again.
                    if queue.type == socket.SOCK_STREAM and queues.is_listening(queue):
                        queue.listen(self.listen.backlog)
        except ListenError:
            self.listen = before
            raise

    def _change_node(self) -> None:
        if self.name is None or not self.owns_path:
            return  # the path is of whoever bound the socket, as its mode is
        uid, gid = sockets.owner(self.listen)
        try:
            self.name.change(self.listen.mode, uid, gid)
        except OSError as error:
            raise ListenError(
                f"cannot set mode or owner of {self.name.path}: {(error.strerror or '').lower()}",
                means="it stays as it is, and nothing was changed",
                do=f"change listen.{self.listen.name}, or restart the manager as a user who may",
            ) from error

    def drop_retired(self) -> None:
        """Close the replaced sockets in which nobody waits any more."""
        for sock in [each for each in self._retired if not queues.queued(each)]:
            self._retired.remove(sock)
            sock.close()

    def close(self) -> None:
        """Close every socket, and remove the path if it is ours."""
        if self.name is not None:
            if self.owns_path:
                self.name.take_away()
            self.name.release()
        self.shutdowns.close()
        for sock in (self.pool, self._only, *self._retired):
            if sock is not None:
                sock.close()


def _node(listen: Listen) -> tuple[int | None, str, str]:
    return listen.mode, listen.user, listen.group
