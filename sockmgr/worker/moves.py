"""The queue by which workers of a service give each other connections that are between requests.

A SOCK_SEQPACKET pair that the manager makes, and that all workers of the service have: who drains
writes to one end, who serves reads from the other. No process stands between, and the kernel gives
each message to one reader; what nobody has read is lost with no worker.
docs/dispatch-protocol.md.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sockmgr.worker.given import GONE, SIZE, came_to, flaw, has_room
from sockmgr.worker.moved import MessageError, Moved, decode, encode
from sockmgr.worker.wire import receive

GIVE_VARIABLE = "SOCKMGR_GIVE_FD"
TAKE_VARIABLE = "SOCKMGR_TAKE_FD"
PAUSE = 0.5  # seconds until it is looked again whether there is room for descriptors
MOST = 512  # that are taken at once, when no more will be: what waits in a queue is less
QUIET = 10.0  # seconds between lines of the log, however many messages are refused

_NOBODY = (errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ENOTCONN)

log = logging.getLogger("uvicorn.error")

Take = Callable[[socket.socket, Moved], None]


class Given(Protocol):
    """A connection as it is given away."""

    transport: asyncio.Transport

    def moved(self) -> Moved:
        """Return what the next worker is told of it."""


class RefusedError(Exception):
    """What came by the queue is no connection that this worker serves."""


class Moves:
    """One worker's use of the queue. Owns its duplicates of both ends; reports in `given`."""

    def __init__(self, give: int, take: int, listeners: Sequence[socket.socket]) -> None:
        """Own both descriptors; `listeners` are those whose connections are given and taken."""
        self._give, self._take = (_adopted(fd) for fd in (give, take))
        self._own = [(each.family, each.getsockname()) for each in listeners]
        self.given, self.taken, self.refused = 0, 0, Counter[str]()
        self.is_over = False  # nobody will ever take what is given
        self._is_full = False
        self._on_room: Callable[[], None] = lambda: None
        self._bring: Take | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._said_at, self._unsaid = -math.inf, 0

    @classmethod
    def inherited(cls, listeners: Sequence[socket.socket]) -> Moves | None:
        """Own the queue that this process was started with; None if there is none.

        Without an end to take from, the dispatcher takes, and passes on what it has taken; the end
        to give shows as well that the queue has been ended. The variables that told of it are
        removed: a child has none.
        """
        give, take = (os.environ.pop(name, "") for name in (GIVE_VARIABLE, TAKE_VARIABLE))
        if not give:
            return None
        return cls(int(give), int(take) if take else os.dup(int(give)), listeners)

    # --- Giving --------------------------------------------------------------------------------

    def on_room(self, call: Callable[[], None]) -> None:
        """Have `call` called each time that a queue that was full has room again."""
        self._on_room = call

    def give(self, connection: Given) -> bool:
        """Give it to whoever serves on, and let go of it; False if it stays with us.

        Nothing of it may be in this process: neither what came nor what is to be sent. Between the
        message and the end of the transport no event is waited for, so nothing more is read here.
        """
        transport = connection.transport
        sock = transport.get_extra_info("socket")
        if self.is_over or self._is_full or not self._is_ours(sock):
            return False
        try:
            socket.send_fds(self._give, [encode(connection.moved())], [sock.fileno()])
        except OSError as error:
            self._cannot_give(error)
            return False
        self.given += 1
        transport.abort()  # only close(2): it is not shut down, and goes on elsewhere
        return True

    def _cannot_give(self, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        if error.errno in _NOBODY:
            self.is_over = True
            return
        self._is_full = True
        if error.errno == errno.EAGAIN:
            loop.add_writer(self._give, self._has_room)
        else:  # something is short, and may not be later: ETOOMANYREFS, ENOBUFS; unix(7)
            self._again = loop.call_later(PAUSE, self._has_room)

    def _has_room(self) -> None:
        self._is_full = False
        asyncio.get_running_loop().remove_writer(self._give)
        self._on_room()

    # --- Taking --------------------------------------------------------------------------------

    def start(self, bring: Take) -> None:
        """Give each connection that others gave away to `bring`, which owns it, from now on."""
        self._bring = bring
        self._resume()

    def stop(self) -> None:
        """Take what waits, and then no more; it can be given again, if anybody else serves on.

        Whoever is the last to serve, as at the stop of a service, would else leave it to nobody.
        """
        self._leave()
        if bring := self._bring:
            for _ in range(MOST):
                if not (has_room(self._take.fileno()) and self._take_one(bring)):
                    break
        self.is_over = self.is_over or _is_shut(self._take)
        self._bring = None
        self._take.close()

    def refuse(self) -> None:
        """Say to all who would give that this service cannot take: they keep what they have."""
        self._take.shutdown(socket.SHUT_RD)
        self.close()

    def close(self) -> None:
        self._leave()
        if self._again:
            self._again.cancel()
        if self._give.fileno() >= 0:
            asyncio.get_running_loop().remove_writer(self._give)
        self._give.close()
        self._take.close()

    def _resume(self) -> None:
        self._pause = None
        if self._bring:
            asyncio.get_running_loop().add_reader(self._take, self._on_message, self._bring)

    def _leave(self) -> None:
        if self._pause:
            self._pause.cancel()
            self._pause = None
        if self._take.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._take)

    def _on_message(self, bring: Take) -> None:
        """Take one a turn, as others do: so they are spread over those who serve."""
        if not has_room(self._take.fileno()):
            # It stays in the queue, for others: a descriptor that finds no place is lost, unix(7).
            self._say("connections of other workers cannot be taken over: too many open files")
            self._leave()
            self._pause = asyncio.get_running_loop().call_later(PAUSE, self._resume)
        elif not self._take_one(bring) and _is_shut(self._take):
            self._leave()

    def _take_one(self, bring: Take) -> bool:
        """Take what is there; False if nothing was: another worker was quicker, or it is shut."""
        try:
            data, fds = receive(self._take, SIZE, 1)
        except BlockingIOError:
            return False
        except OSError as error:  # there are more, or the limit of open files was met after all
            self._refuse(f"it did not come whole, or more than it ({error.strerror})", ())
            return True
        if not (data or fds) and _is_shut(self._take):
            return False
        try:
            moved = decode(data)
            sock = self._checked(fds)
        except (MessageError, RefusedError) as error:
            self._refuse(str(error), fds)
        else:
            self.taken += 1
            bring(sock, moved)
        return True

    def _checked(self, fds: Sequence[int]) -> socket.socket:
        """Return the one connection; raises RefusedError, and leaves `fds` as they are."""
        if len(fds) != 1:
            raise RefusedError(f"{len(fds)} descriptors came with it")
        try:
            sock = socket.socket(fileno=fds[0])
        except OSError:
            raise RefusedError("it is no socket") from None
        why = flaw(sock) or ("" if self._is_ours(sock) else "it came to another listener")
        if why:
            sock.detach()
            raise RefusedError(why)
        sock.setblocking(False)
        return sock

    def _is_ours(self, sock: Any) -> bool:
        if not self._own:  # all that we have was passed to us
            return True
        try:
            family, own = sock.family, sock.getsockname()
        except OSError:
            return False
        return any(family == each and came_to(own, listener) for each, listener in self._own)

    def _refuse(self, why: str, fds: Sequence[int]) -> None:
        for fd in fds:
            os.close(fd)
        self.refused[why] += 1
        if why != GONE:
            self._say(f"what another worker gave was closed: {why}; nothing else is affected")

    def _say(self, line: str) -> None:
        self._unsaid += 1
        if time.monotonic() - self._said_at >= QUIET:
            more = f" ({self._unsaid} since this was last said)" if self._unsaid > 1 else ""
            log.warning("%s%s", line, more)
            self._said_at, self._unsaid = time.monotonic(), 0


def _adopted(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
    sock.setblocking(False)
    return sock


def _is_shut(sock: socket.socket) -> bool:
    """Return whether nobody can write any more to what `sock` reads."""
    look = select.poll()
    look.register(sock, select.POLLRDHUP)
    return bool(look.poll(0))
