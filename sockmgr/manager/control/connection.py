"""One client of the control socket: whole messages in, whole replies out, both bounded.

Owns the connection; does not know the methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from dataclasses import dataclass
from typing import Any

from sockmgr.api import varlink, wire
from sockmgr.errors import SockmgrError
from sockmgr.kernel.unix_node import credentials, groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may cost the manager: bytes of a message, numbers of them, and seconds."""

    message: int = varlink.LONGEST_CALL
    clients: int = 64
    operations: int = 256
    followers: int = 16  # each is given every line or event, so they cost more than others
    message_timeout: float = 30.0
    write_timeout: float = 10.0
    close_timeout: float = 5.0  # for answers that are due when the manager ends
    accept_delay: float = 1.0


class _Line(asyncio.StreamReaderProtocol):
    """The protocol of one connection, with a future for when the other end hangs up."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        # A StreamReader shows the end only to who reads, and nobody reads during an operation.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def eof_received(self) -> bool:
        self._end()
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Dropped(Exception):
    """The client has left, or the manager does not wait for it any longer."""


class ControlConnection:
    """One client: whole messages in, whole replies out, both bounded in size and time."""

    _writer: asyncio.StreamWriter  # from open() on

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.pid, self.uid = credentials(sock)
        self.groups = groups(sock)
        self.idle = True
        self._socket = sock
        self._limits = limits
        self._reader = asyncio.StreamReader(limit=limits.message)
        self._line = _Line(self._reader)

    async def open(self) -> None:
        """Begin to listen to the client; nothing else may be called before."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: self._line, self._socket)
        self._writer = asyncio.StreamWriter(transport, self._line, self._reader, loop)
        # drain() then waits until the kernel has everything: one reply a client is buffered.
        transport.set_write_buffer_limits(high=0)

    async def receive(self) -> bytes | None:
        """Return the next message without its NUL, None when the client has left."""
        self.idle = True
        try:
            async with asyncio.timeout(self._limits.message_timeout):
                data = await self._reader.readuntil(b"\0")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise Dropped("its message is too long") from None
        except TimeoutError:
            raise Dropped("it sent no whole message in time") from None
        except OSError as error:
            raise Dropped(str(error)) from None
        self.idle = False
        return data[:-1]

    async def send(self, reply: bytes) -> None:
        """Give the client its reply, or raise if it does not take it in time."""
        self._writer.write(reply)
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                await self._writer.drain()
        except TimeoutError:
            raise Dropped("it did not take its answer in time") from None
        except OSError as error:
            raise Dropped(str(error)) from None

    def post(self, reply: bytes) -> None:
        """Send a reply unless the client still has to take an earlier one; it is dropped then."""
        # Progress that a client does not read must not pile up here, nor hold up a rollout.
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() == 0:
            self._writer.write(reply)

    async def stream(self, reply: bytes) -> None:
        """Send a reply and wait until the client takes it, however long that is."""
        self._writer.write(reply)
        try:
            await self._writer.drain()
        except OSError as error:
            raise Dropped(str(error)) from None

    async def is_there_at(self, event: asyncio.Future[Any]) -> bool:
        """Wait for `event`; return False if the client leaves before it."""
        await asyncio.wait({event, self._line.ended}, return_when=asyncio.FIRST_COMPLETED)
        if not event.done() and self._is_gone():
            return False
        await asyncio.wait({event})  # a client that sends nothing any more may still read
        return True

    def _is_gone(self) -> bool:
        # The end of its messages may be the shutdown(SHUT_WR) of one that still reads; POLLHUP
        # means that both directions are closed (unix_poll() in net/unix/af_unix.c).
        if self._writer.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)
        return bool(poll.poll(0))

    def dismiss(self, why: SockmgrError | wire.Unanswerable) -> None:
        """Send an error, if the client can take it at once, and hang up."""
        self._writer.write(wire.write_error(why))
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection; what the kernel has taken is still delivered."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Close the socket, which is open still if the task was cancelled before it began."""
        self._socket.close()


def dismiss(sock: socket.socket, why: SockmgrError | wire.Unanswerable) -> None:
    """Send a new client the reason for which it is turned away, and hang up."""
    with contextlib.suppress(OSError):  # it has left already
        sock.send(wire.write_error(why))
    sock.close()
