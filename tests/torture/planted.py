"""Servers that do to their clients what they are told to, and the judge's opinion of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

from sockmgr.torture.load.result import Outcome
from tests.helpers.load import Result, Target, load_for, parse_mode

BODY = b'{"pid": 7, "version": "1"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def request(self) -> bytes:
        """Read one request; empty at the end."""
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
            if not data:
                return b""
            got += data
        return got

    async def some(self, size: int) -> bytes:
        """Read so many bytes; fewer at the end."""
        got = b""
        while len(got) < size:
            data = await asyncio.get_running_loop().sock_recv(self.sock, size - len(got))
            if not data:
                break
            got += data
        return got

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def reset(self) -> None:
        """Close with RST: socket(7), SO_LINGER with a timeout of zero."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@contextlib.asynccontextmanager
async def serving(handler: Handler, listener: socket.socket) -> AsyncIterator[None]:
    """Give every connection to `handler`, and close it afterwards."""
    listener.setblocking(False)

    async def handle(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            await handler(Peer(sock))

    async def accept() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                group.create_task(handle(sock))

    task = asyncio.create_task(accept())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def tcp(backlog: int = 128) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=backlog)


def target(sock: socket.socket) -> Target:
    return Target(family=socket.AF_INET, address=sock.getsockname())


def judge(
    handler: Handler, mode: str, *, duration: float = 0.15, drain: float = 2, backlog: int = 128
) -> Result:
    """Run one mode against a TCP server whose every connection goes to `handler`."""

    async def run() -> Result:
        with tcp(backlog) as listener:
            async with serving(handler, listener):
                modes = [parse_mode(mode)]
                return await load_for(duration, target(listener), modes, drain=drain)

    return asyncio.run(run())


def judge_target(aim: Target, mode: str) -> Result:
    return asyncio.run(load_for(0.15, aim, [parse_mode(mode)], drain=1))


def outcomes(result: Result) -> set[Outcome]:
    assert result.rows
    return {row.outcome for row in result.rows}


async def good(peer: Peer) -> None:
    while await peer.request():
        await peer.send(ANSWER)


def says(*pieces: bytes, reset: bool = False) -> Handler:
    """Make a handler that reads one request, sends these bytes and closes."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        for piece in pieces:
            await peer.send(piece)
        if reset:
            peer.reset()

    return handler
