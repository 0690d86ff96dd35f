"""Connections that workers gave away, taken from the move queues of a service: docs/moves.md.

One at a time, and only while it can be passed on; the rest waits in the queue. Nobody has to
believe who gives: what is no connection of a listener of the service is closed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sockmgr.kernel import rights
from sockmgr.programs.dispatcher.channel import Passed
from sockmgr.programs.dispatcher.link import Link
from sockmgr.programs.dispatcher.loop import Loop
from sockmgr.programs.dispatcher.messages import Say
from sockmgr.worker.given import GONE, SIZE, came_to, flaw, has_room

if TYPE_CHECKING:
    from sockmgr.programs.dispatcher.dispatcher import Dispatcher

PAUSE = 0.5  # seconds until it is looked again whether there is room for descriptors
QUIET = 10.0  # seconds between records, however many messages are refused
_ROOM = socket.CMSG_SPACE(16)  # for more descriptors than there may be


class Told:
    """What was told of connections that are not passed on yet: a memfd for each. Owns those."""

    def __init__(self) -> None:
        self._memfds: dict[int, int] = {}

    def __contains__(self, fd: int) -> bool:
        """Return whether something was told of this connection; it is passed on alone then."""
        return fd in self._memfds

    def note(self, fd: int, memfd: int) -> None:
        """Own what was told of a connection."""
        self._memfds[fd] = memfd

    def of(self, passed: Sequence[Passed]) -> Sequence[Passed]:
        """Own what was told of connections that came back, and return those."""
        for each in passed:
            if each.told >= 0:
                self.note(each.fd, each.told)
        return passed

    def send(self, link: Link, key: str, fds: Sequence[int]) -> None:
        """Pass connections to a worker, with what was told if it is one; raises OSError."""
        told = [self._memfds[fd] for fd in fds if fd in self._memfds and link.channel.is_told]
        link.channel.send([*fds, *told], bytes([link.numbers[key]]) * len(fds))
        for fd in fds:
            self.forget(fd)

    def forget(self, fd: int) -> None:
        """Close what was told of a connection, if anything was."""
        if (memfd := self._memfds.pop(fd, None)) is not None:
            os.close(memfd)

    def close(self) -> None:
        for fd in list(self._memfds):
            self.forget(fd)


class MoveQueues:
    """Owns the taking ends of the queues of one service; borrows its listeners."""

    def __init__(self, loop: Loop, dispatcher: Dispatcher, told: Told, say: Say) -> None:
        """Take nothing yet; what is told of a connection is noted in `told`."""
        self._loop, self._dispatcher, self._told, self._say = loop, dispatcher, told, say
        self._queues: dict[int, socket.socket] = {}  # by inode
        self._waiting: set[int] = set()
        self._said_at = 0.0

    def add(self, fd: int) -> None:
        """Own one, and take from it when there is room; it is let go when it has been ended."""
        inode = os.fstat(fd).st_ino
        if inode in self._queues:
            os.close(fd)
            return
        queue = self._queues[inode] = socket.socket(fileno=fd)
        queue.setblocking(False)
        self._waiting.add(inode)
        self.go()

    def go(self) -> None:
        """Take again where there was no room."""
        if self._waiting and self._has_room():
            for inode in tuple(self._waiting):
                self._waiting.discard(inode)
                self._loop.add_reader(self._queues[inode], partial(self._take, inode))

    def rest(self) -> None:
        """Take nothing until go(), and let go of what was told of connections not passed on yet."""
        for inode, queue in self._queues.items():
            self._loop.remove_reader(queue)
            self._waiting.add(inode)
        self._told.close()

    def close(self) -> None:
        """Let go of all, and of what was told of connections that are not passed on yet."""
        for inode in list(self._queues):
            self._drop(inode)
        self._told.close()

    def _has_room(self) -> bool:
        keys = set(self._dispatcher.sources.keys.values())
        return bool(keys) and all(self._dispatcher.room(key, 1) for key in keys)

    def _take(self, inode: int) -> None:
        queue = self._queues[inode]
        if not self._has_room():
            self._loop.remove_reader(queue)
            self._waiting.add(inode)
        elif not has_room(queue.fileno()):
            self._loop.remove_reader(queue)
            self._waiting.add(inode)
            self._loop.call_later(PAUSE, self.go)
        else:
            self._take_one(inode, queue)

    def _take_one(self, inode: int, queue: socket.socket) -> None:
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, ancillary, _, _ = queue.recvmsg(SIZE, _ROOM, flags)
        except BlockingIOError:  # a worker that takes from it as well was quicker
            return
        fds = rights.received(ancillary)
        if not data and not fds:
            self._drop(inode)
            return
        key, why = self._listener_of(fds)
        if why:
            rights.close_all(fds)
            self._refuse(why)
            return
        memfd = os.memfd_create("sockmgr-moved")
        os.write(memfd, data)
        self._told.note(fds[0], memfd)
        self._dispatcher.pass_on(key, fds)

    def _listener_of(self, fds: Sequence[int]) -> tuple[str, str]:
        """Return the key of the listener that a connection came to, or why it is none."""
        if len(fds) != 1:
            return "", f"{len(fds)} descriptors came with it"
        copy = os.dup(fds[0])
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            return "", "it is no socket"
        with sock:
            # One whose client is gone is passed on, as any other that waits for a worker.
            if (why := flaw(sock)) not in ("", GONE):
                return "", why
            for listener, key in self._dispatcher.sources.keys.items():
                if listener.family == sock.family and _came_to(sock, listener):
                    return key, ""
        return "", "it came to another listener"

    def _refuse(self, why: str) -> None:
        if not self._said_at or self._loop.time() - self._said_at >= QUIET:
            self._said_at = self._loop.time()
            self._say("warning", "what a worker gave was closed", why=why,
                      means="nothing else is affected")  # fmt: skip

    def _drop(self, inode: int) -> None:
        queue = self._queues.pop(inode)
        self._waiting.discard(inode)
        self._loop.remove_reader(queue)
        queue.close()


def _came_to(sock: socket.socket, listener: socket.socket) -> bool:
    try:
        return came_to(sock.getsockname(), listener.getsockname())
    except OSError:
        return False
