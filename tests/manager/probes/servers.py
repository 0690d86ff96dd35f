"""Servers that answer in some way, or do not, each on a port of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from sockmgr.manager.probes.prober import Reach

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Reach]:
    """Serve by `answer`, which need not close; yield what connects to it."""

    clients: list[asyncio.Task[None]] = []

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            writer.transport.abort()
        # As a process that ends: without the close_notify of TLS, and not before all was sent.
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(asyncio.ensure_future(attend(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield partial(reach, server.sockets[0].getsockname())
    finally:
        server.close()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients)
        await asyncio.sleep(0.01)  # the transports close in the next turn of the loop


async def reach(address: tuple[str, int]) -> socket.socket:
    """Return a connection to this address that does not block."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


def saying(*pieces: bytes, stays: bool = False) -> Answer:
    """Return a server that says this to each request, then closes, or `stays` open for long."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if stays:
            await reader.read()

    return answer


async def byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer so slowly that the end never comes."""
    await reader.readuntil(b"\r\n\r\n")
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 100:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer 200 with a body that goes on for ever."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 4096)
        await writer.drain()


async def by_name(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer 200 to those only who ask for shop.example, and with X-Token."""
    head = await reader.readuntil(b"\r\n\r\n")
    known = b"\r\nHost: shop.example\r\n" in head and b"\r\nX-Token: s3cret\r\n" in head
    writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % (b"200 OK" if known else b"400 Bad"))
    await writer.drain()


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, as servers of mail do."""
    writer.write(b"220 mail.example\r\n")
    await reader.read(1)
