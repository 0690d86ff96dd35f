"""Which connections a worker gives away, and which stay with it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from sockmgr.worker.moved import Moved
from sockmgr.worker.moves import Moves


@dataclass
class Idle:
    """A connection that nothing is in."""

    transport: asyncio.Transport

    def moved(self) -> Moved:
        return Moved(idle_since=0.0, requests=1)


async def is_given(moves: Moves, listener: socket.socket) -> bool:
    """Return whether the connection of a client of this listener was given away."""
    with socket.create_connection(listener.getsockname()):
        loop, (sock, _) = asyncio.get_running_loop(), listener.accept()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, sock)
        given = moves.give(Idle(transport))
        assert transport.is_closing() is given
        transport.abort()
        await asyncio.sleep(0)  # it is closed in the next turn
    return given


def test_a_connection_to_another_listener_stays() -> None:
    async def told() -> tuple[bool, bool]:
        give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with (
            socket.create_server(("127.0.0.1", 0)) as ours,
            socket.create_server(("127.0.0.1", 0)) as others,
        ):
            moves = Moves(give.detach(), take.detach(), [ours])
            found = await is_given(moves, ours), await is_given(moves, others)
            moves.close()
            return found

    assert asyncio.run(told()) == (True, False)


def test_what_nobody_takes_stays_and_nothing_is_given_any_more() -> None:
    async def told() -> tuple[bool, bool]:
        give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with take, socket.create_server(("127.0.0.1", 0)) as ours:
            moves = Moves(give.detach(), take.fileno(), [ours])
            take.shutdown(socket.SHUT_RD)  # as a service whose workers cannot take does
            found = await is_given(moves, ours), moves.is_over
            take.detach()
            moves.close()
            return found

    assert asyncio.run(told()) == (False, True)
