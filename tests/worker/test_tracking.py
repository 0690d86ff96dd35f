"""What the drain is told by uvicorn's protocols, seen without a worker around them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from sockmgr.worker.connection import HELD, KEY, Tracked
from sockmgr.worker.tracking import tracked
from tests.worker.programs.edges import answer

PIPELINE = (
    b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\n1\r\n\r\n2\r\n0\r\n\r\n"
    b"GET /3 HTTP/1.1\r\nHost: x\r\n\r\n"
)
ASKED = [("/1", b"\r\n\r\n\r\n\r\n", True), ("/2", b"1\r\n\r\n2", True), ("/3", b"", False)]


class Seen:
    """An application that notes what was asked of it, and whether more was there already."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[tuple[str, bytes, bool]] = asyncio.Queue()
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await self.may_answer.wait()
        self.requests.put_nowait((scope["path"], body, scope["state"][KEY].has_more))
        await answer(send, b"")


@contextlib.asynccontextmanager
async def zttp(app: Any) -> AsyncIterator[Tracked]:
    """Serve one connection by zttp; the other end is open, and says nothing."""
    pytest.importorskip("zttp")
    config = uvicorn.Config(app, http="zttp", lifespan="off", log_config=None, access_log=False)
    config.load()
    make: Any = tracked(config.http_protocol_class)
    loop = asyncio.get_running_loop()
    protocol = make(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        try:
            yield protocol
        finally:
            transport.abort()
            await asyncio.sleep(0)


def test_zttp_answers_all_of_a_pipeline_wherever_it_is_cut() -> None:
    async def ask(cut: int) -> list[tuple[str, bytes, bool]]:
        seen = Seen()
        async with asyncio.timeout(30), zttp(seen) as protocol:
            for piece in (PIPELINE[:cut], PIPELINE[cut:]):
                protocol.data_received(piece)
            seen.may_answer.set()
            return [await seen.requests.get() for _ in ASKED]

    async def ask_all() -> None:
        for cut in range(len(PIPELINE)):
            assert await ask(cut) == ASKED, PIPELINE[:cut]

    asyncio.run(ask_all())


def test_zttp_answers_a_pipeline_that_comes_byte_by_byte() -> None:
    async def ask() -> None:
        seen = Seen()
        async with asyncio.timeout(30), zttp(seen) as protocol:
            for number in PIPELINE:
                protocol.data_received(bytes([number]))
            seen.may_answer.set()
            assert [await seen.requests.get() for _ in ASKED] == ASKED

    asyncio.run(ask())


def test_a_flood_of_pipelined_requests_is_not_read_on() -> None:
    async def flood() -> None:
        seen = Seen()
        async with asyncio.timeout(30), zttp(seen) as protocol:
            protocol.data_received(PIPELINE)
            reads: Any = protocol
            assert not reads.flow.read_paused
            protocol.data_received(bytes(HELD))
            assert reads.flow.read_paused

    asyncio.run(flood())


@pytest.mark.parametrize("name", ["ZttpProtocol", "H11Protocol", "AnyProtocol"])
def test_a_protocol_that_has_not_what_is_needed_is_not_tracked(name: str) -> None:
    other = type(name, (asyncio.Protocol,), {"__module__": __name__})
    assert tracked(other) is None
